//! Branchline.
