//! The listener on a loopback address: TLS or nothing, and so many connections.

use std::{net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::harness::House;
use crate::{
    admin,
    config::Tls,
    metrics::names::web,
    store::tests_support::Directory,
    tls::{self, Authorities, Identity},
};

struct Served {
    house: House,
    address: SocketAddr,
    connector: TlsConnector,
    task: JoinHandle<()>,
    _directory: Directory,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    async fn start(name: &str) -> Self {
        let house = House::inhabited(name).await;
        let directory = Directory::new("identity");
        let names = ["branch.example".to_owned()];
        let identity = Identity::open(directory.path(), None, None, &names, &[]).unwrap();
        let authorities = Authorities::open(None).unwrap();
        let server = tls::server_config(&identity, &authorities, &Tls::default()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(identity.chain().pop().unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = admin::bind_tls("127.0.0.1:0".parse().unwrap(), "web.listen").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (router, shared) = (admin::pages(&house.web), house.web.clone());
        let task = tokio::spawn(async move {
            admin::serve_tls(listener, server, router, shared).await;
        });
        Self { house, address, connector: TlsConnector::from(Arc::new(client)), task, _directory: directory }
    }

    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        self.connector.connect(ServerName::try_from("branch.example").unwrap(), stream).await
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    // A server that refuses may close before it has read everything.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn requests_are_answered_by_tls_and_plain_http_is_told_so() {
    let served = Served::start("tls").await;
    let request = "GET /sign-in HTTP/1.1\r\nHost: branch.example\r\nConnection: close\r\n\r\n";
    let said = answer(served.connect().await.unwrap(), request).await;
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    let plain = answer(TcpStream::connect(served.address).await.unwrap(), request).await;
    let (head, body) = plain.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(body, "This port speaks HTTPS: put https:// in front of the address.\r\n");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    assert_eq!(served.house.refused(web::TLS), 1);
}

#[tokio::test]
async fn a_head_that_is_too_long_or_has_too_many_fields_is_refused() {
    let served = Served::start("head").await;
    let fields = |count: usize| (0..count).map(|number| format!("X-{number}: a\r\n")).collect::<String>();
    for (description, extra) in
        [("many fields", fields(100)), ("one long field", format!("X: {}\r\n", "a".repeat(64 * 1024)))]
    {
        let request = format!("GET /sign-in HTTP/1.1\r\nHost: a\r\n{extra}\r\n");
        let said = answer(served.connect().await.unwrap(), &request).await;
        assert!(said.starts_with("HTTP/1.1 431 "), "{description}: {said}");
    }
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_gets_places_back() {
    let served = Served::start("connections").await;
    let mut open = Vec::new();
    for number in 0..64 {
        open.push(served.connect().await.unwrap_or_else(|error| panic!("{number}: {error}")));
    }
    assert!(served.connect().await.is_err(), "one too many");
    assert_eq!(served.house.refused(web::CONNECTIONS), 1);
    open.clear();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while served.connect().await.is_err() {
        assert!(std::time::Instant::now() < deadline, "no place came back");
        tokio::task::yield_now().await;
    }
}
