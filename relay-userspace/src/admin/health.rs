//! HTTP for machines: `/metrics` for Prometheus, `/healthz` (the process lives), `/readyz` (calls work, or
//! why not).

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use super::Observed;

/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until the listener fails.
///
/// # Errors
/// That of the listener.
pub async fn serve(listener: TcpListener, observed: Arc<dyn Observed>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(observed);
    axum::serve(listener, router).await
}

/// Binds the listener.
///
/// # Errors
/// A sentence that names the address and the key to change.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(listen)
        .await
        .map_err(|error| format!("admin.listen = \"{listen}\": the port cannot be bound: {error}"))
}

async fn metrics(State(observed): State<Arc<dyn Observed>>) -> impl IntoResponse {
    match observed.metrics() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(observed): State<Arc<dyn Observed>>) -> impl IntoResponse {
    match observed.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}
