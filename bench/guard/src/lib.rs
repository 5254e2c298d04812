//! Benches without a library: what `cargo xtask bench instructions` counts, and what `cargo xtask bench program` times.
//!
//! They are a package of their own because a package's benches wait for its programs, and for all that its tests need:
//! here they take the daemon's library as a release has built it, and two more programs are linked, not four.
//!
//! | bench | what |
//! |---|---|
//! | `instructions` | steps of userspace, each in a process of its own under Callgrind |
//! | `program` | the kernel program beside programs that do next to nothing |
