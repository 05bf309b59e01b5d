"""Operations that pick, place, join and order: embedding, gather, concat, pad, sort."""
