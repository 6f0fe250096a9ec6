//! The SQS intake: which queue, and how messages are taken from it.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::config::units::{duration, hidden};

/// One SQS queue that bucket notifications arrive in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqsSettings {
    /// `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`, as SQS gives it.
    pub queue_url: String,
    /// The region used in signatures; without it, the one in `queue_url`.
    #[serde(default)]
    pub region: Option<String>,
    /// `http://host:port` or `https://host[:port]`; without it, that of `queue_url`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The access key; with `secret_key`. Without either, the AWS default chain is asked.
    #[serde(default, serialize_with = "hidden")]
    pub access_key: Option<SecretString>,
    /// The secret key.
    #[serde(default, serialize_with = "hidden")]
    pub secret_key: Option<SecretString>,
    /// A session token that belongs to temporary keys.
    #[serde(default, serialize_with = "hidden")]
    pub session_token: Option<SecretString>,
    /// A file that holds the access key.
    #[serde(default)]
    pub access_key_file: Option<PathBuf>,
    /// A file that holds the secret key.
    #[serde(default)]
    pub secret_key_file: Option<PathBuf>,
    /// PEM certificates to trust besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How many requests for messages are under way at once; each takes up to ten messages.
    #[serde(default = "default_receivers")]
    pub receivers: usize,
    /// How long a request for messages waits while there is none.
    #[serde(default = "default_wait_time", with = "duration")]
    pub wait_time: Duration,
    /// How long a message that was received stays invisible to others; extended while it is worked on.
    #[serde(default = "default_visibility_timeout", with = "duration")]
    pub visibility_timeout: Duration,
}

impl SqsSettings {
    /// The region to sign for: the one that is set, else the one that AWS puts into the names of its
    /// hosts (`sqs.REGION.amazonaws.com`, `ID.sqs.REGION.vpce.amazonaws.com`), else us-east-1.
    pub fn signing_region(&self) -> String {
        let named = || {
            let uri: Uri = self.queue_url.parse().ok()?;
            let mut labels =
                uri.host()?.split('.').skip_while(|l| !matches!(*l, "sqs" | "sqs-fips"));
            labels.next()?;
            let region = labels.next()?.to_owned();
            labels.any(|label| label == "amazonaws").then_some(region)
        };
        self.region.clone().or_else(named).unwrap_or_else(|| "us-east-1".to_owned())
    }

    /// Where requests go: the endpoint that is set, else scheme, host and port of the queue's URL.
    pub fn service_endpoint(&self) -> String {
        let of_queue = || {
            let uri: Uri = self.queue_url.parse().ok()?;
            Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?))
        };
        // An URL without a host was refused when the settings were checked.
        self.endpoint.clone().or_else(of_queue).unwrap_or_default()
    }
}

const fn default_receivers() -> usize {
    4
}

const fn default_wait_time() -> Duration {
    Duration::from_secs(20)
}

const fn default_visibility_timeout() -> Duration {
    Duration::from_secs(30)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(queue_url: &str) -> SqsSettings {
        toml::from_str(&format!("queue_url = '{queue_url}'")).unwrap()
    }

    #[test]
    fn region_and_endpoint_are_those_of_the_queue_unless_they_are_set() {
        for (queue_url, region, endpoint) in [
            (
                "https://sqs.eu-central-1.amazonaws.com/1/q",
                "eu-central-1",
                "https://sqs.eu-central-1.amazonaws.com",
            ),
            (
                "https://vpce-1a.sqs.us-west-2.vpce.amazonaws.com/1/q",
                "us-west-2",
                "https://vpce-1a.sqs.us-west-2.vpce.amazonaws.com",
            ),
            (
                "https://sqs-fips.us-gov-west-1.amazonaws.com/1/q",
                "us-gov-west-1",
                "https://sqs-fips.us-gov-west-1.amazonaws.com",
            ),
            (
                "https://sqs.cn-north-1.amazonaws.com.cn/1/q",
                "cn-north-1",
                "https://sqs.cn-north-1.amazonaws.com.cn",
            ),
            (
                "http://sqs.internal.example:9324/0/q",
                "us-east-1",
                "http://sqs.internal.example:9324",
            ),
            ("http://127.0.0.1:9324/000000000000/q", "us-east-1", "http://127.0.0.1:9324"),
        ] {
            let mut settings = of(queue_url);
            assert_eq!(settings.signing_region(), region, "{queue_url}");
            assert_eq!(settings.service_endpoint(), endpoint, "{queue_url}");
            settings.region = Some("given".to_owned());
            settings.endpoint = Some("http://given".to_owned());
            assert_eq!(settings.signing_region(), "given");
            assert_eq!(settings.service_endpoint(), "http://given");
        }
    }
}
