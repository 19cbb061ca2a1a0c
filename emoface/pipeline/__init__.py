"""Pipeline files: their stages and the values that stages set."""
