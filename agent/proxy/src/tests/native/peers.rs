//! Peers made by hand.
