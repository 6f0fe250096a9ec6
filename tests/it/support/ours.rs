//! evermirror's own S3 client, where it is itself what is tested, or the only one that can read the answer.

use std::time::Duration;

use evermirror::store::{Side, Store};

use super::minio::{ACCESS_KEY, SECRET_KEY};

/// A client of the store at this endpoint.
pub(crate) async fn store(endpoint: &str) -> Store {
    let settings = format!(
        "endpoint = '{endpoint}'\naccess_key = '{ACCESS_KEY}'\nsecret_key = '{SECRET_KEY}'"
    );
    let settings = toml::from_str(&settings).unwrap();
    Store::connect(Side::Source, &settings, Duration::from_secs(20)).await.unwrap()
}
