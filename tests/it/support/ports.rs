//! Ports that stay free between one start of a server and the next.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

static NEXT: AtomicU16 = AtomicU16::new(0);

/// Below the range from which the kernel gives ports to outgoing connections: a server that is stopped
/// and started again finds its port free. Each test process begins at a place of its own.
const FIRST: u16 = 15_000;
const LAST: u16 = 32_000;

/// A port of 127.0.0.1 that nobody listens on and that this process gives away once.
pub(crate) fn free_port() -> u16 {
    let span = LAST - FIRST;
    let home = u16::try_from(std::process::id().wrapping_mul(997) % u32::from(span)).unwrap();
    for _ in 0..span {
        let port = FIRST + home.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % span;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port between {FIRST} and {LAST} is free");
}
