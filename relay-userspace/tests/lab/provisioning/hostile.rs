//! What no phone sends: it is refused, counted, and others are served meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::Result;
use xtask::lab::network::APPLIANCE_OFFICE;

use super::{FIRST, Files, RELAY, curl};
use crate::site::LIMIT;

/// Sends bytes to the relay as they are and returns what comes until it closes.
fn raw(files: &Files, port: u16, bytes: Vec<u8>) -> Result<String> {
    let answer = files.lab.office.enter(move || -> std::io::Result<Vec<u8>> {
        let address = SocketAddr::from((APPLIANCE_OFFICE, port));
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(&bytes)?;
        let mut answer = Vec::new();
        // A reset after the answer is an end too.
        let _ = stream.read_to_end(&mut answer);
        Ok(answer)
    })??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn request(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

#[test]
fn paths_and_headers_that_try_to_lead_elsewhere_are_refused() -> Result<()> {
    let files = Files::start("upload_mib = 1\n", "")?;
    let nginx = files.nginx(FIRST, "")?;
    files.put("good.cfg", b"good")?;
    let long = format!("GET /{}", "x".repeat(3000));
    let rows: [(&str, Vec<u8>, &str); 12] = [
        ("out of the root", request("GET /../../etc/passwd", ""), "400"),
        ("the same, escaped", request("GET /%2e%2e/%2E%2e/etc/passwd", ""), "400"),
        ("the same, in Windows' way", request("GET /..%5c..%5cetc", ""), "400"),
        ("a header in the path", request("GET /a%0d%0aX-Injected:%20yes", ""), "400"),
        ("a header in the path, bare", request("GET /a\rX: y", ""), "400"),
        ("a folded header", request("GET /good.cfg", "X: a\r\n b\r\n"), "400"),
        ("a method of its own", request("DELETE /good.cfg", ""), "405"),
        ("a tunnel", request("CONNECT 10.62.0.10:22", ""), "405"),
        ("a long path", request(&long, ""), "414"),
        ("a giant header", request("GET /good.cfg", &format!("X: {}\r\n", "x".repeat(64 << 10))), "431"),
        ("a hundred headers", request("GET /good.cfg", &"X: y\r\n".repeat(100)), "431"),
        ("a file that is too large", request("PUT /x.log", "Content-Length: 2000000\r\n"), "413"),
    ];
    for (description, bytes, status) in rows {
        let answer = raw(&files, 8088, bytes)?;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{description}: {answer:?}");
    }
    assert_eq!(nginx.asked()?, [], "none of it reached the server");
    // Two lengths at once, by which one request could be taken for two.
    let smuggled = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 30\r\n\r\nGET /y HTTP/1.1\r\n\r\n";
    assert!(raw(&files, 8088, smuggled.to_vec())?.starts_with("HTTP/1.1 400 "));
    assert_eq!(nginx.asked()?, []);
    // A host of the phone's choice decides nothing, and what it says of others is dropped.
    let elsewhere = request("GET http://203.0.113.9/good.cfg", "X-Forwarded-For: 203.0.113.7\r\n");
    assert!(raw(&files, 8088, elsewhere)?.ends_with("good"));
    assert_eq!(nginx.asked()?[0].forwarded_for, "10.61.0.11");

    // A file that grows too large while it is sent.
    let mut chunked = request("PUT /x.log", "Transfer-Encoding: chunked\r\n");
    for _ in 0..20 {
        chunked.extend(b"10000\r\n");
        chunked.extend([b'x'; 0x10000]);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    assert!(raw(&files, 8088, chunked)?.starts_with("HTTP/1.1 413 "));
    assert!(!files.root.join("x.log").exists());
    for (reason, least) in [("path", 4.0), ("method", 2.0), ("path_too_long", 1.0), ("body_too_large", 2.0)] {
        let counted = files.metric("refused_total", &[("reason", reason)])?;
        assert!(counted >= least, "{reason}: {counted}");
    }
    assert_eq!(files.metric("upstream_failures_total", &[("server", &format!("http://{FIRST}"))])?, 0.0);
    assert_eq!(files.get("/good.cfg")?.body, b"good");
    Ok(())
}

#[test]
fn who_says_nothing_or_opens_too_much_is_cut_off_and_others_are_served() -> Result<()> {
    let files = Files::start("connections_per_phone = 4\n", "")?;
    let _nginx = files.nginx(FIRST, "")?;
    files.put("good.cfg", b"good")?;
    let other = files.lab.own_host(1)?;
    let slow = files.lab.office.enter(|| -> std::io::Result<Vec<TcpStream>> {
        (0..6)
            .map(|number| {
                let mut stream = TcpStream::connect_timeout(&(APPLIANCE_OFFICE, 8088).into(), LIMIT)?;
                stream.set_read_timeout(Some(LIMIT))?;
                // One has not even begun, the others never come to the end of their heads.
                if number > 0 {
                    stream.write_all(b"GET /good.cfg HTTP/1.1\r\nHost: x\r\nX-Slow: ")?;
                }
                Ok(stream)
            })
            .collect()
    })??;
    let served = curl(&other, files.lab.dir(), RELAY, &[], "/good.cfg")?;
    assert_eq!(served.body, b"good", "another phone is served while one holds all of its connections");
    for mut stream in slow {
        // The end, or a reset; never an answer with the file.
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(!answer.contains("good"), "{answer}");
    }
    assert_eq!(files.metric("refused_total", &[("reason", "too_many_connections_of_one")])?, 2.0);
    assert!(files.metric("refused_total", &[("reason", "silent")])? >= 1.0);
    assert_eq!(files.get("/good.cfg")?.body, b"good", "and so is the first one when it has let go");
    Ok(())
}
