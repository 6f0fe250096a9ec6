//! The way to a store: its name, its port, its certificate. Each step is told by itself, since each is
//! mended by somebody else.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::check::Check;
use crate::config::settings::StoreSettings;
use crate::store::{describe, tls_config};

/// For each step.
const PATIENCE: Duration = Duration::from_secs(5);

/// Walks the way to the store in `[area]`.
pub(super) async fn reach(area: &'static str, settings: &StoreSettings) -> Check {
    let began = Instant::now();
    match walk(area, settings).await {
        Ok(steps) => Check::ok(
            area,
            format!(
                "{} is reached ({steps}, {} ms)",
                settings.endpoint,
                began.elapsed().as_millis()
            ),
        ),
        Err((says, advice)) => Check::problem(area, says, advice),
    }
}

async fn walk(area: &str, settings: &StoreSettings) -> Result<&'static str, (String, String)> {
    let wrong = || {
        let says = format!("{} is no endpoint", settings.endpoint.escape_debug());
        (says, format!("write http://HOST:PORT or https://HOST[:PORT] as endpoint in [{area}]"))
    };
    let uri: Uri = settings.endpoint.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']);
    let tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });

    let failed =
        |what: String, why: String, advice: String| Err((format!("{what}: {why}"), advice));
    let addresses: Vec<_> = match timeout(PATIENCE, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            let advice =
                format!("correct the host in [{area}] endpoint, or this machine's name service");
            return failed(format!("DNS does not know {host}"), error.to_string(), advice);
        }
        Err(_) => {
            let advice = "look at this machine's name service".to_owned();
            return failed(format!("DNS does not answer for {host}"), "5 s".to_owned(), advice);
        }
    };
    let stream = match timeout(PATIENCE, TcpStream::connect(&*addresses)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let advice = format!("is the store running, and is {port} its port?");
            return failed(format!("TCP to {host}:{port} fails"), error.to_string(), advice);
        }
        Err(_) => {
            let advice = "a firewall or a network policy may drop the packets".to_owned();
            return failed(
                format!("TCP to {host}:{port} gets no answer"),
                "5 s".to_owned(),
                advice,
            );
        }
    };
    if !tls {
        return Ok("DNS, TCP");
    }
    let untrusted = format!(
        "set ca_file in [{area}] to the authority of its certificate, and the endpoint to a name in it"
    );
    let what = format!("TLS with {host}:{port} fails");
    let config = match tls_config(settings.ca_file.as_deref(), true) {
        Ok(config) => config,
        Err(error) => return failed(what, error.to_string(), format!("check ca_file in [{area}]")),
    };
    let Ok(name) = ServerName::try_from(host.to_owned()) else { return Err(wrong()) };
    let connector = TlsConnector::from(Arc::new(config));
    match timeout(PATIENCE, connector.connect(name, stream)).await {
        Ok(Ok(_)) => Ok("DNS, TCP, TLS"),
        Ok(Err(error)) => failed(what, describe(&error), untrusted),
        Err(_) => failed(what, "no answer for 5 s".to_owned(), "is this port HTTPS?".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Level;

    async fn at(endpoint: &str) -> Check {
        let settings = toml::from_str(&format!("endpoint = '{endpoint}'")).unwrap();
        reach("source", &settings).await
    }

    #[tokio::test]
    async fn a_port_that_is_closed_or_speaks_no_tls_is_told_apart() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(at(&format!("http://127.0.0.1:{port}")).await.level, Level::Ok);
        let hang_up = async {
            loop {
                drop(listener.accept().await);
            }
        };
        let endpoint = format!("https://127.0.0.1:{port}");
        let check = tokio::select! {
            check = at(&endpoint) => check,
            () = hang_up => unreachable!(),
        };
        assert!(check.says.starts_with("TLS with"), "{}", check.says);
        drop(listener);
        let check = at(&format!("http://127.0.0.1:{port}")).await;
        assert!(check.says.starts_with("TCP to"), "{}", check.says);
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_told() {
        let check = at("http://does-not-exist.invalid:9000").await;
        assert!(check.says.starts_with("DNS does not"), "{}", check.says);
    }
}
