//! Requests to the routers.
