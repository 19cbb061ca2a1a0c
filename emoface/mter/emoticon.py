"""EmotiCon by name: face points and pose, the photo without the person, and depth, fused to 26 logits.

The authors published no code. The layers are from the paper's text and public re-implementations; ``docs/mter.md``
lists what the paper does not state and what is chosen here.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from emoface.mter.attention_branch import AttentionResNet18
from emoface.mter.base import ContextInput, ModalityLogits, Mter, MterOutput, check_inputs, masked_rows
from emoface.mter.blocks import Backbone, FeatureNorm
from emoface.mter.depth_branch import DepthCnn, ProximityGcn
from emoface.mter.inputs import FACE_LANDMARKS, PEOPLE, POSE, model_array_inputs
from emoface.mter.names import DepthForm
from emoface.mter.pose_graph import PoseBranch
from emoface.schema import N_CATEGORIES

FACE_CONVOLUTIONS = (256, 512, 1024)
FACE_LAYERS = (1024, 512, 256)
FUSION_WIDTH = 52
N_ANSWERS = 3
N_VAD = 3


class FaceBranch(nn.Module):
    """Three convolutions of kernel 1 with BatchNorm and ReLU, and three fully connected layers; (b, 136) to (b, 26).

    The 136 numbers are the channels of a sequence of length 1, so that the first layer has a weight for every point.
    ReLU between the fully connected layers is our choice.
    """

    def __init__(self, n_labels: int = N_CATEGORIES) -> None:
        super().__init__()
        convolutions: list[nn.Module] = []
        for one, other in zip((*FACE_LANDMARKS.shape, *FACE_CONVOLUTIONS[:-1]), FACE_CONVOLUTIONS, strict=True):
            convolutions += [nn.Conv1d(one, other, 1, bias=False), FeatureNorm(other), nn.ReLU()]
        layers: list[nn.Module] = []
        for one, other in pairwise((*FACE_LAYERS, n_labels)):
            layers += [nn.Linear(one, other), nn.ReLU()]
        self.convolutions = nn.Sequential(*convolutions)
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, landmarks: Tensor) -> Tensor:
        features = self.convolutions(landmarks[:, :, None])  # (b, 1024, 1)
        out: Tensor = self.layers(features.flatten(1))
        return out


def fuse_modalities(modalities: ModalityLogits) -> Tensor:
    """Fuses modalities by the product of their probabilities, renormalised to a sum of 1 over the labels.

    A modality's probabilities are the softmax of its logits over the 26 labels, so that the renormalised product is the
    softmax of the sum of the logits. A modality that a person lacks is left out; of a person without any modality all
    labels get 1 / 26.

    Returns:
        (b, 26).

    Source: Mittal et al. 2020, "M3ER: Multiplicative Multimodal Emotion Recognition". The softmax, in place of a
    sigmoid, and the renormalisation are our choice.
    """
    total = torch.stack(
        [
            logits.float().masked_fill(~modalities.is_present[name][:, None], 0)
            for name, logits in modalities.logits.items()
        ]
    ).sum(dim=0)
    return total.softmax(dim=1)


class Emoticon(Mter):
    """EmotiCon: three interpretations of a person's context, each to 26 values, fused by two layers.

    Context 1 is the person itself: face points and pose, fused by the product of their probabilities. Context 2 is the
    photo with the person's body box blanked, seen by an attention branch network. Context 3 is depth, or the places of
    the photo's people. The values of context 3 of a person without that input are 0.

    Args:
        dropout: Dropout probability within the units of the pose branch.
        predicts_vad: Adds a head for valence, arousal and dominance, which the paper does not have.
        has_linear_outputs: See ``Mter``; those of the modalities and of the attention branch stay logits.
        depth_form: ``cnn`` for the depth map, ``gcn`` for the graph of the photo's people.
        proximity_limit: Distance up to which two people are joined in that graph.
        context_center_share: See ``ContextInput``.
        n_labels: Number of labels.

    Source: Mittal et al. 2020, "EmotiCon: Context-Aware Multimodal Emotion Recognition using Frege's Principle".
    """

    def __init__(
        self,
        *,
        dropout: float = 0.5,
        predicts_vad: bool = False,
        has_linear_outputs: bool = False,
        depth_form: DepthForm = "cnn",
        proximity_limit: float = 1.0,
        context_center_share: float = 1.0,
        n_labels: int = N_CATEGORIES,
    ) -> None:
        super().__init__(
            "emoticon",
            ("context",),
            context_input=ContextInput(center_share=context_center_share, masks_body=True),
            array_inputs=model_array_inputs("emoticon", depth_form=depth_form),
            has_linear_outputs=has_linear_outputs,
            n_labels=n_labels,
        )
        self.face = FaceBranch(n_labels)
        self.pose = PoseBranch(dropout, n_labels=n_labels)
        self.context = AttentionResNet18(n_labels)
        is_cnn = depth_form == "cnn"
        self.depth = DepthCnn(n_labels=n_labels) if is_cnn else ProximityGcn(proximity_limit, n_labels=n_labels)
        self.reduce = nn.Linear(N_ANSWERS * n_labels, FUSION_WIDTH)
        self.act = nn.ReLU()
        self.head = nn.Linear(FUSION_WIDTH, n_labels)
        self.vad_head = nn.Linear(FUSION_WIDTH, N_VAD) if predicts_vad else None

    @property
    def parts(self) -> tuple[str, ...]:
        return ("face", "pose", "context", "depth")

    def backbones(self) -> dict[str, Backbone]:
        return {"context": self.context}

    def forward(self, inputs: Mapping[str, Tensor], has_face: Tensor) -> MterOutput:
        check_inputs(self, inputs, has_face)
        modalities = self.compute_modalities(inputs)
        context, attention_logits = self.context.attend(inputs["context"])
        fused = fuse_modalities(modalities).to(context.dtype)
        answers = torch.cat((fused, context, self.compute_depth(inputs).to(context.dtype)), dim=1)  # (b, 78)
        features = self.act(self.reduce(answers))
        vad_unit = None if self.vad_head is None else self.to_vad_unit(self.vad_head(features))
        return MterOutput(self.head(features), {}, vad_unit, modalities, attention_logits)

    def compute_modalities(self, inputs: Mapping[str, Tensor]) -> ModalityLogits:
        """Computes the logits of face points and pose, 0 for people who lack the one or the other."""
        logits, is_present = {}, {}
        for name, branch, given, form in (
            ("face", self.face, "face_landmarks", FACE_LANDMARKS),
            ("pose", self.pose, "pose", POSE),
        ):
            is_present[name] = inputs[form.presence]
            logits[name] = masked_rows(branch, inputs[given], is_present[name], self.n_labels)
        return ModalityLogits(logits, is_present)

    def compute_depth(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Computes the output of the depth branch, (b, 26), 0 for people who lack its input."""
        if isinstance(self.depth, ProximityGcn):
            output: Tensor = self.depth(inputs["people"], inputs[PEOPLE.presence])
            return output
        return masked_rows(self.depth, inputs["depth"], inputs[self.array_inputs["depth"].presence], self.n_labels)
