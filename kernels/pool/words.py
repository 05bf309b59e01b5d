"""The argument block of the pooling tasks, beside the addresses of the arrays in words 0 to 3."""

# Lines to compute, and how many tasks share them; channels; size of the result along d, h and w.
UNITS, TASKS, CHANNELS, SIZE = 5, 6, 7, 8  # SIZE: 3 words
# Byte strides along n, c, d, h, w: of what is read, of the result, and of the taps.
SOURCE, TARGET, TAPS = 11, 16, 21
# For each axis the addresses of two int32 tables: where the list of each element of the result starts, and
# the pairs (element read, tap) of all lists.
STARTS, PAIRS = 26, 29
# For each axis the address of the int32 factors of the windows' divisors; then that of the reciprocals of
# those along w, in the dtype that is computed with.
FACTORS, RECIPROCALS = 32, 35
# Taps along h and w; elements along w of what is read.
TAPS_H, TAPS_W, SOURCE_W = 36, 37, 38
WORDS = 39
