//! Requests to the routers and to the listener, with an appliance that is made up and a store that is real.

mod harness;
mod listener;
mod pages;
mod rest;
