"""Pipeline files: read from TOML, their stages checked against the jobs, and the state of each stage.

Running the stages is the job ``emoface.jobs.pipeline``; the commands ``run`` and ``status`` are in
``emoface.cli.pipelines``; the files that come with emoface are in the folder ``pipelines`` of the repository.
"""
