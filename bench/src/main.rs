//! try
mod cores; mod testbed; mod traffic;
use std::net::SocketAddrV4;
use traffic::*;
fn main() -> anyhow::Result<()> {
    xtask::lab::interrupt::listen();
    let bed = testbed::Testbed::create()?;
    let floor = bed.traffic.redirect(&bed.lab.branch, &bed.names)?;
    let routes: Vec<_> = (0..1000).map(|c| { let [(a,p),_]=testbed::ends(c); Route{from:SocketAddrV4::new(a,p), to: SocketAddrV4::new(testbed::appliance(0)[0], 20000+2*c as u16)}}).collect();
    bed.traffic.set_streams(&routes)?;
    let arr = cores::receiver(&bed.names.arrivals)?; let snk = cores::receiver(&bed.names.sink)?;
    cores::pin(arr, cores::Core::FORWARDING)?; cores::pin(snk, cores::Core::TRAFFIC)?; cores::put_first(arr)?; cores::put_first(snk)?;
    for rate in [Rate::PerSecond(100e3), Rate::PerSecond(500e3), Rate::PerSecond(1e6), Rate::PerSecond(2e6), Rate::Unlimited] {
        let b = cores::run_time(&[arr])?; let sb = cores::run_time(&[snk])?;
        let ran = bed.traffic.run(&bed.lab.office, 1000, Load{frame:214, rate, time: std::time::Duration::from_secs(1), expects: Some(0), delays: Delays::Ignored})?;
        let cpu = cores::run_time(&[arr])?-b; let s = cores::run_time(&[snk])?-sb;
        println!("{rate:?} sent {} in {:?} lost {} {:?} cpu {} ns/p busy {:.2} sink {} ns/p", ran.sent, ran.time, ran.lost(), ran.received, cpu.as_nanos() as u64/ran.received.packets.max(1), cpu.as_secs_f64()/ran.time.as_secs_f64(), s.as_nanos() as u64/ran.received.packets.max(1));
    }
    let ran = bed.traffic.run(&bed.lab.office, 1000, Load{frame:214, rate:Rate::PerSecond(200e3), time: std::time::Duration::from_secs(1), expects: Some(0), delays: Delays::Measured})?;
    let mut acc=0; for (i,c) in ran.delays.iter().enumerate() { acc+=c; if *c>0 { println!("{} ns: {} {:.4}", bench_programs::smallest(i as u32), c, acc as f64/ran.received.packets as f64);} }
    drop(floor);
    Ok(())
}
