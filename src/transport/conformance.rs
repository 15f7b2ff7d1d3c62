//! What every transport must do, as a suite (feature `testing`).
