//! Branchline.
pub mod sdp;
pub mod sip;
pub mod splice;
