"""Reading and writing of files, tables, job records, cards, shards and weight files."""
