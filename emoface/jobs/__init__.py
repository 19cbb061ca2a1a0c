"""The jobs: one file each, ``XConfig`` and ``run_x(config) -> record``; they meet in files only."""
