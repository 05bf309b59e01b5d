"""Operations that only look at memory in another way: reshape, transpose, broadcast_to, slice."""
