//! HTTP for machines: `/metrics` for Prometheus, `/healthz` (the process lives), `/readyz` (calls work, or
//! why not).
//!
//! It may be reachable for more than Prometheus: connections have the limits and times of those of the pages.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus::IntCounterVec;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tracing::{debug, warn};

use super::{
    Observed,
    listener::{ACCEPT_AGAIN, FIELDS, Guests, HEAD, PATIENCE, Place, TAKES, refused_head},
};
use crate::{metrics::names, net::Patient};

/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves for as long as it is polled; what is refused is counted in `refused`, by reason.
pub async fn serve(listener: TcpListener, observed: Arc<dyn Observed>, refused: IntCounterVec) -> Infallible {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(observed);
    let guests = Arc::new(Mutex::new(Guests::default()));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "metrics: a connection could not be accepted");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Some(place) = Place::take(&guests, peer.ip().to_canonical()) else {
            refused.with_label_values(&[names::web::CONNECTIONS]).inc();
            continue;
        };
        let (service, refused) = (TowerToHyperService::new(router.clone()), refused.clone());
        connections.spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .max_buf_size(HEAD)
                .max_headers(FIELDS)
                .serve_connection(TokioIo::new(Patient::new(stream, TAKES)), service)
                .await;
            if let Err(error) = served {
                let error = refused_head(error, |reason| refused.with_label_values(&[reason]).inc());
                debug!(%error, %peer, "metrics: connection");
            }
            drop(place);
        });
    }
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
