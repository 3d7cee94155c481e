//! Tables of what an apply writes.
