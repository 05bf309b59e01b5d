"""The argument blocks of the tasks along rows of pixels, behind the addresses of the arrays and the scratch.

Strides and sizes are in bytes where a name says so or is that of an array; other words count.
"""

# Convolution (`row_tiles.py`). A unit is a band of an image; bands of BAND rows, the last one ends with the
# image. Tiles of channels, rows and columns; TILES_*: how many.
N, BANDS, BAND, TASKS = 8, 9, 10, 11
OUT, CHANNELS, TAPS_H, TAPS_W = 12, 13, 14, 15
TILES_O, TILES_H, TILES_W = 16, 17, 18
PLACES_H, PLACES_W, SIZE_H, SIZE_W = 19, 20, 21, 22
LO_H, LO_W, DIL_H = 23, 24, 25
X_N, X_C, X_H, Y_N, Y_C, Y_H = 26, 27, 28, 29, 30, 31
W_O, W_C, W_H, W_W, W_FIRST, B_STEP = 32, 33, 34, 35, 36, 37
# The copy of a band with its border: rows; vectors in a row of it, or in each of a row's two phases.
ROWS, COLUMNS = 38, 39
# Bytes of packed weights, of a task's scratch behind them, and tasks that pack.
PACKED, TASK_BYTES, PACK_TASKS = 40, 41, 42
# Weight gradient (`row_sums.py`): images at a time, vectors in a row of grad. W_* are dw's strides, Y_* those
# of grad, BAND is rows of grad, and PACK_TASKS are tasks that add up.
IMAGES, VECTORS = 43, 44
# Convolution: rows of the image from one row of the output to the next.
STRIDE_H = 45
# Whether y is too large for the caches, and whole vectors of it go past them where it starts at a line.
PAST = 46
WORDS = 47
