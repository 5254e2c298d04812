use super::*;
use crate::{metrics::Metrics, store::tests_support::Directory};

struct House {
    captures: Arc<Captures>,
    store: Arc<Store>,
    metrics: Metrics,
    directory: Directory,
}

fn networks() -> Vec<Network> {
    let network = |name: &str, address: &str| Network {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        ports: [8060, 8060, 8061, 8060, 8060, 8060],
    };
    vec![network("office", "10.61.0.1"), network("wan", "10.62.0.1")]
}

impl House {
    fn new(settings: config::Capture) -> Self {
        let directory = Directory::new("captures");
        let store = Arc::new(Store::open(&directory.path().join("state")).unwrap());
        let metrics = Metrics::new().unwrap();
        let path = directory.path().join("captures");
        let captures =
            Captures::open(&path, settings, networks(), Arc::clone(&store), &metrics.services).unwrap();
        Self { captures: Arc::new(captures), store, metrics, directory }
    }

    fn start(&self, call: &str) -> Result<(String, Tap), CaptureError> {
        self.captures.start(&wanted(call))
    }

    async fn ended(&self) -> CaptureView {
        timeout(Duration::from_secs(30), self.captures.one_ended()).await.unwrap();
        self.captures.list().unwrap().remove(0)
    }

    fn content(&self, name: &str) -> Vec<u8> {
        let mut content = Vec::new();
        for number in 0.. {
            let part = self.captures.part(name, number).unwrap();
            content.extend(part.content);
            if !part.more {
                break;
            }
        }
        content
    }
}

fn wanted(call: &str) -> Wanted {
    Wanted {
        target: Target::Call(call.to_owned()),
        recipients: Vec::new(),
        keys: Keys::Masked,
        seconds: None,
        mib: None,
        sealing: None,
    }
}

fn media(bytes: usize) -> PacketCopy {
    PacketCopy {
        unix_ns: 1,
        network: NetworkId(0),
        way: Way::In,
        source: "10.61.0.11:4000".parse().unwrap(),
        destination: "10.61.0.1:16384".parse().unwrap(),
        type_of_service: 0,
        payload: Bytes::from(vec![7; bytes]),
        remark: None,
    }
}

#[tokio::test]
async fn a_capture_has_the_calls_messages_and_packets_and_no_others_sealed_or_not() {
    for sealing in [Sealing::Plain, Sealing::Sealed] {
        let house = House::new(config::Capture::default());
        let wanted = Wanted { sealing: Some(sealing), ..wanted("a/1@host") };
        let (name, tap) = house.captures.start(&wanted).unwrap();
        let message = |call: &str| {
            Bytes::from(format!(
                "BYE sip:1@10.61.0.1 SIP/2.0\r\nVia: SIP/2.0/TLS 10.61.0.11;branch=z9hG4bK1\r\nFrom: <sip:2@h>;tag=1\r\n\
                 To: <sip:1@h>;tag=2\r\nCall-ID: {call}\r\nCSeq: 2 BYE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
            ))
        };
        let peer = "10.61.0.11:40000".parse().unwrap();
        let hop = Hop { network: NetworkId(0), transport: Transport::Tls, address: peer };
        house.captures.message(Way::In, hop, &message("a/1@host"), Dscp::DEFAULT);
        house.captures.message(Way::In, hop, &message("other@host"), Dscp::DEFAULT);
        tap.offer(media(172));
        house.captures.stop(&name).unwrap();
        let view = house.ended().await;
        assert_eq!((view.state.as_str(), view.reason.as_deref()), ("ended", Some("stopped")));
        assert_eq!((view.packets, view.dropped, view.encrypted), (2, 0, sealing == Sealing::Sealed));
        let content = house.content(&name);
        assert_eq!(content.len() as u64, view.bytes);
        let has = |what: &[u8]| content.windows(what.len()).any(|window| window == what);
        assert!(has(&message("a/1@host")) && has(&[7; 172]) && has(b"SIP over TLS, shown as UDP in clear"));
        assert!(!has(b"other@host"));
        assert!(tap.is_closed() && house.captures.sightings().is_empty());
        let sealed = house.directory.path().join(format!("captures/{name}.pcapng.sealed"));
        assert_eq!(sealed.exists(), sealing == Sealing::Sealed);
        house.captures.remove(&name).unwrap();
        assert_eq!(fs::read_dir(house.directory.path().join("captures")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn limits_refuse_with_the_key_that_sets_them() {
    let settings = config::Capture { total_mib: 250, max_running: 3, ..config::Capture::default() };
    let house = House::new(settings);
    let out_of_range = |seconds, mib| Wanted { seconds, mib, ..wanted("x") };
    for (wanted, key) in [
        (out_of_range(Some(601), None), "capture.max_seconds"),
        (out_of_range(Some(0), None), "capture.max_seconds"),
        (out_of_range(None, Some(101)), "capture.max_mib"),
    ] {
        let error = house.captures.start(&wanted).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
    let (first, _) = house.start("a").unwrap();
    let error = house.start("a").unwrap_err().to_string();
    assert!(error.contains(&format!("already, as {first}")), "{error}");
    house.start("b").unwrap();
    let error = house.start("c").unwrap_err().to_string();
    assert!(error.contains("capture.total_mib"), "{error}");
    house.captures.start(&Wanted { mib: Some(1), ..wanted("c") }).unwrap();
    let error = house.captures.start(&Wanted { mib: Some(1), ..wanted("d") }).unwrap_err().to_string();
    assert!(error.contains("capture.max_running"), "{error}");
    assert!(house.captures.remove(&first).unwrap_err().to_string().contains("stop it first"));
    house.captures.shutdown().await;
    assert!(house.captures.list().unwrap().iter().all(|view| view.state == "ended"));
}

#[tokio::test]
async fn a_capture_ends_by_size_by_time_with_its_call_and_by_a_disk_that_takes_no_more() {
    let house = House::new(config::Capture::default());
    let (_, tap) = house.captures.start(&Wanted { mib: Some(1), ..wanted("size") }).unwrap();
    while !tap.is_closed() {
        tap.offer(media(60_000));
        tokio::task::yield_now().await;
    }
    let view = house.ended().await;
    assert_eq!(view.reason.as_deref(), Some("its size was reached"));
    assert!(view.bytes <= MIB && view.bytes > MIB - 70_000, "{}", view.bytes);

    house.captures.start(&Wanted { seconds: Some(1), ..wanted("time") }).unwrap();
    timeout(Duration::from_secs(30), house.captures.one_ended()).await.unwrap();
    house.captures.start(&wanted("call")).unwrap();
    house.captures.calls_stand(|call| call != b"call");
    timeout(Duration::from_secs(30), house.captures.one_ended()).await.unwrap();
    let reasons: Vec<String> =
        house.captures.list().unwrap().into_iter().filter_map(|view| view.reason).collect();
    assert!(reasons.contains(&"its time was over".to_owned()), "{reasons:?}");
    assert!(reasons.contains(&"ended with the call".to_owned()), "{reasons:?}");

    let (tap, tapped) = Tap::new(2);
    let (recording, _) = Recording::begin(MIB, "full", &["office".to_owned()]);
    let writer = Writer::open_for_test(Path::new("/dev/full"));
    let mut work = Work { tapped, recording, writer: Some(writer), progress: Arc::default() };
    tap.offer(media(172));
    let copies = work.tapped.next(1).await;
    let end = work.write(&copies).await.unwrap_err();
    let End::Failed(why) = work.finish(end).await else { panic!("it has not failed") };
    assert!(why.contains("No space left on device"), "{why}");
    assert!(tap.is_closed());
    assert_eq!(house.metrics.services.capture_failures.get(), 0);
}

#[tokio::test]
async fn a_capture_that_the_last_daemon_did_not_end_is_marked_and_names_lead_nowhere_else() {
    let house = House::new(config::Capture::default());
    let (name, _tap) = house.start("a").unwrap();
    let path = house.directory.path().join("captures");
    let again = Captures::open(
        &path,
        config::Capture::default(),
        networks(),
        Arc::clone(&house.store),
        &house.metrics.services,
    )
    .unwrap();
    let view = again.list().unwrap().remove(0);
    assert_eq!((view.name.as_str(), view.state.as_str()), (name.as_str(), "ended"));
    assert!(view.reason.unwrap().starts_with("interrupted"));
    assert!(again.part(&name, 0).unwrap().content.starts_with(b"\x0A\x0D\x0D\x0A"));
    for wrong in ["", "../state/secret", "a/b", "nobody", "."] {
        assert!(matches!(again.part(wrong, 0), Err(CaptureError::NotFound(_))), "{wrong}");
        assert!(matches!(again.remove(wrong), Err(CaptureError::NotFound(_))), "{wrong}");
        assert!(matches!(again.stop(wrong), Err(CaptureError::NotFound(_))), "{wrong}");
    }
    house.captures.shutdown().await;
}
