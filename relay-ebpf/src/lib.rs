//! Packet core.
#![no_std]
