"""Writes the model card of an exported model: what it is for, how it was trained, its metrics beside chance.

Source: Mitchell et al. 2019, "Model Cards for Model Reporting"; the metadata are those of the Hugging Face Hub.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from emoface.schema import CATEGORIES, MAPS_FOLDER, POINTS_FILE

_SYSTEMS = {
    "kosti": "the two-branch network of Kosti et al. 2019",
    "caer-net-s": "CAER-Net-S of Lee et al. 2019",
    "affective-graph": "the affective graph of Zhang et al. 2019",
    "emoticon": "EmotiCon of Mittal et al. 2020",
}
_MTER = "MTER (Multi-task Emotion Recognition)"
_STREAM_PHRASES = {"face": "the face", "body": "the body", "context": "the whole photo"}
_SHOWN = (
    *("split", "weights_sha256", "mean_average_precision", "interval", "labels_defined", "lift"),
    *("average_absolute_error", "warnings", "has_shuffled_labels"),
)
_NO_EVALUATION = "This model has not been evaluated. `emoface evaluate` computes the metrics of a run."
_NOT_FOR = """\
- **Apparent emotion is not felt emotion.** The labels are what annotators who never met the people believed to see in a
  photo. The model repeats such guesses; it does not know what anybody feels, thinks or intends.
- Do not use it to decide about a person: not for hiring, education, policing, border control, insurance, credit, health
  care or advertising to individuals, and not to watch people at work or at school. In the European Union, emotion
  recognition at work and in schools is prohibited by article 5 of the AI Act, with few exceptions.
- It is made to compare methods of context-aware emotion recognition in research."""
_BIASES = """\
- Annotators agree little with each other on most of the categories, and an expression of the face does not show one
  emotion in all people and cultures alike (Barrett et al. 2019, "Emotional Expressions Reconsidered").
{photos}
- Labels are rare and unequally so: the average precision of a label with few people says little.
- The surroundings are an input: the model also learns which places go with which labels in its training data."""
_EMOTIC_PHOTOS = """\
- EMOTIC's photos are from MSCOCO, ADE20K and the web, and are no sample of the people of the world: about two thirds
  of the people were judged to be men, and most to be adults (Kosti et al. 2019). Errors differ between groups of
  people."""
_OWN_PHOTOS = """\
- The photos of its data set are no sample of the people of the world. Errors differ between groups of people."""
_LICENSE = """\
Unknown to emoface, which knows the training data only by the sha256 of their manifest. If they are EMOTIC or a part of
it: its annotations and photos may be used for non-commercial research only, and it is not settled whether weights that
were trained on them may be used in another way; treat them in the same way. emoface itself is under Apache-2.0, which
says nothing about these weights. Whoever publishes them must check the licences of the data and of the initial weights,
and then replace `license: other` in the first lines of this file."""


def select_results(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Selects the values of ``metrics.json`` that a model card shows; no path is among them."""
    chance = metrics["chance"]
    return {
        **{name: metrics[name] for name in _SHOWN},
        "chance": {name: chance[name] for name in ("mean_average_precision", "average_absolute_error")},
        "people": {name: metrics["people"][name] for name in ("people", "evaluated", "with_face")},
        "manifest": {"sha256": metrics["manifest"]["sha256"]},
        "protocol": metrics.get("protocol"),
    }


def render_model_card(config: Mapping[str, Any]) -> str:
    """Renders the model card as Markdown with the metadata of the Hugging Face Hub at its start.

    Args:
        config: The description of the model, see ``emoface.mter.exported.describe_model``, and ``evaluations``, the
            ``select_results`` of each evaluated split.
    """
    evaluations = config["evaluations"]
    sections = {
        f"{config['model']} of emoface": _describe_model(config),
        "What it is not for": _NOT_FOR,
        "Known biases": _BIASES.format(photos=_EMOTIC_PHOTOS if _has_emotic_labels(config) else _OWN_PHOTOS),
        "Training data and protocol": _describe_training(config, evaluations),
        "Metrics": _describe_metrics(evaluations),
        "Initial weights": _describe_initial_weights(config),
        "How to load it": _describe_loading(config),
        "Licence": _LICENSE,
    }
    (title, first), *others = sections.items()
    parts = [_render_metadata(config, evaluations), f"# {title}", first]
    for name, text in others:
        parts += [f"## {name}", text]
    return "\n\n".join(parts) + "\n"


def is_model_card(text: str) -> bool:
    """Whether a text is a card by ``render_model_card``, and not a README that somebody wrote."""
    return text.startswith("---\n") and 'library_name: "emoface"' in text


def _render_metadata(config: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Renders the metadata as YAML, of which JSON is a part."""
    results = [_to_result(one) for one in evaluations]
    values: dict[str, Any] = {
        "license": "other",
        "license_name": "see-the-section-licence",
        "library_name": "emoface",
        "pipeline_tag": "image-classification",
        "tags": ["emotion-recognition", "multi-label-classification", "context-aware", "emoface", str(config["model"])],
    }
    if _is_emotic(evaluations):
        values["datasets"] = ["emotic"]
    if results:
        values["metrics"] = ["mean_average_precision"]
        values["model-index"] = [{"name": str(config["model"]), "results": results}]
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _to_result(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the metrics of a split to an entry of the model index."""
    low, high = metrics["interval"]
    values = [
        ("mean_average_precision", "mAP", metrics["mean_average_precision"]),
        ("interval_low", "lower end of the 95 % interval of mAP", low),
        ("interval_high", "upper end of the 95 % interval of mAP", high),
        ("chance_level", "mAP of chance: mean prevalence", metrics["chance"]["mean_average_precision"]),
        ("lift", "lift of mAP over chance", metrics["lift"]),
    ]
    sha256 = metrics["manifest"]["sha256"]
    return {
        "task": {"type": "image-classification", "name": "multi-label emotion recognition"},
        "dataset": {
            "type": "emotic" if _is_emotic([metrics]) else "unknown",
            "name": f"data set whose manifest has the sha256 {sha256[:12]}...",
            "split": metrics["split"],
        },
        "metrics": [{"type": kind, "name": name, "value": value} for kind, name, value in values if value is not None],
    }


def _is_emotic(evaluations: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a protocol was kept that proves that the data set has all of EMOTIC's people."""
    return any((one.get("protocol") or {}).get("name") == "emotic-test" for one in evaluations)


def _describe_model(config: Mapping[str, Any]) -> str:
    system = _SYSTEMS.get(config["model"], _MTER)
    streams = [_STREAM_PHRASES[stream] for stream in config["streams"]]
    arrays = [name.replace("_", " ") for name in config["array_inputs"]]
    seen = ", ".join([*streams, *arrays])
    lines = [
        f"A network for each person in a photo: {system}, under the name `{config['model']}`. Its inputs are {seen}; "
        f"its outputs are the probabilities of {_describe_labels(config)}"
        + (", and valence, arousal and dominance from 1 to 10." if config["recipe"].get("predicts_vad") else "."),
    ]
    if config["shuffle_labels"]:
        lines.append(
            "**It was trained on shuffled labels**, as a check for leaks, and predicts only how frequent labels are."
        )
    named = {stream: one for stream, one in config["backbones"].items() if stream in config["streams"]}
    lines += [
        f"Network of {_STREAM_PHRASES[stream]}: `{one['name']}`, built by {one['software'] or 'emoface'}."
        for stream, one in named.items()
    ]
    sizes = ", ".join(f"{stream} {config['stream_sizes'][stream]}" for stream in config["streams"])
    lines.append(f"Sides of the inputs in pixels: {sizes}. Categories: {', '.join(config['label_names'])}.")
    return "\n\n".join(lines)


def _describe_labels(config: Mapping[str, Any]) -> str:
    n_labels = len(config["label_names"])
    return "the 26 categories of EMOTIC" if _has_emotic_labels(config) else f"{n_labels} labels of its data set"


def _has_emotic_labels(config: Mapping[str, Any]) -> bool:
    return tuple(config["label_names"]) == CATEGORIES


def _describe_training(config: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> str:
    recipe, people = config["recipe"], config.get("people") or {}
    lines = [f"- data set: the one whose `manifest.json` has the sha256 `{config['manifest']['sha256']}`"]
    lines += [
        f"- people of {split}: {counts['people']:,}, {counts['usable']:,} of them usable"
        for split, counts in people.items()
        if isinstance(counts, Mapping) and {"people", "usable"} <= counts.keys()
    ]
    named = {
        "recipe": config.get("preset"),
        "epochs": _describe_epochs(recipe.get("epochs"), config.get("epochs_trained")),
        "batch size": recipe.get("batch_size"),
        "optimizer": recipe.get("optimizer"),
        "learning rate": recipe.get("learning_rate"),
        "loss": recipe.get("loss"),
        "seed": config.get("seed"),
    }
    lines += [f"- {name}: {value}" for name, value in named.items() if value is not None]
    detector = config["detector"]
    if "name" in detector or "detector" in detector:
        lines.append(f"- faces found by {detector.get('name', detector.get('detector'))}")
    settings_name = config.get("settings_name", "config.json")
    lines.append(f"- the epoch was chosen by the mAP on val; `{settings_name}` has the complete recipe")
    kept = sorted({one["protocol"]["name"] for one in evaluations if one.get("protocol")})
    lines.append(f"- protocol of evaluation whose rules are kept: {', '.join(kept) or 'none was checked'}")
    return "\n".join(lines)


def _describe_epochs(planned: int | None, trained: int | None) -> str | None:
    """Number of epochs, also where training stopped early or went on after its schedule."""
    if planned is None or trained is None or planned == trained:
        return None if planned is None else str(planned)
    how = "stopped early" if trained < planned else "the others at the learning rate of the schedule's end"
    return f"{trained}; schedule of {planned}, {how}"


def _describe_metrics(evaluations: Sequence[Mapping[str, Any]]) -> str:
    if not evaluations:
        return _NO_EVALUATION
    lines = [
        "| split | people | mAP | 95 % interval | mAP of chance | lift | valence, arousal, dominance: error (chance) |"
    ]
    lines.append("|---|---:|---:|---|---:|---:|---|")
    for one in evaluations:
        low, high = one["interval"]
        error, chance = one["average_absolute_error"], one["chance"]["average_absolute_error"]
        rated = "not predicted"
        if error is not None and chance is not None:
            rated = f"{_format(error['mean'])} ({_format(chance['mean'])})"
        lines.append(
            f"| {one['split']} | {one['people']['evaluated']:,} | {_format(one['mean_average_precision'])} | "
            f"{_format(low)}-{_format(high)} | {_format(one['chance']['mean_average_precision'])} | "
            f"{_format(one['lift'])} | {rated} |"
        )
    lines += [
        "",
        "mAP is the mean of the average precision of the labels that anybody of the split has, 0-1; chance is",
    ]
    lines += ["the mean prevalence of these labels, which guessing reaches. The interval is a bootstrap over photos."]
    lines.append("")
    for one in evaluations:
        lines += [f"- {one['split']}: {warning}" for warning in one["warnings"]]
    if any(one["has_shuffled_labels"] for one in evaluations):
        lines.append("- The labels of the training were shuffled.")
    return "\n".join(lines).rstrip()


def _format(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _describe_initial_weights(config: Mapping[str, Any]) -> str:
    initial = config.get("initial_weights") or {}
    if not initial:
        return "Not recorded."
    lines = []
    for stream, one in initial.items():
        sha256 = f", sha256 `{one['sha256']}`" if one.get("sha256") else ""
        lines.append(f"- {stream}: {one['source']}{sha256}" if one.get("source") else f"- {stream}: random values")
    return "\n".join(lines)


def _describe_loading(config: Mapping[str, Any]) -> str:
    providers = [one for table in config.get("array_tables", {}).values() for one in table["providers"]]
    if config["array_inputs"] and (not providers or {POINTS_FILE, MAPS_FOLDER} & set(providers)):
        use = "It reads more than photos: `emoface evaluate` predicts the people of a data set that has its inputs."
    else:
        use = "\n".join(
            [
                "```python",
                "import emoface  # pip install 'emoface[train]'",
                "",
                'predictor = emoface.load("FOLDER")  # this folder, or OWNER/NAME on the Hugging Face Hub',
                'for person in predictor.predict("party.jpg"):',
                "    print(person.body_bbox, person.top(3))",
                "```",
            ]
        )
        if providers:
            use += f"\n\nIt reads more than the photo, provided by {', '.join(providers)}; "
            use += "of these, models must be on the machine."
    weights_name = config.get("weights_name", "model.safetensors")
    return f"{use}\n\nsha256 of `{weights_name}`: `{config['weights_sha256']}`; written by {config['exported_by']}."
