"""Label statistics, stratified splits and balancing of multi-label people; plain numpy."""
