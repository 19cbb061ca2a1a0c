"""Files, tables, job records, cards and weight files: what is kept on disk and how."""
