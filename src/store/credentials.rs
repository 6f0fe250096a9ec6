//! The credentials of one store, made ready to sign, and kept fresh.
//!
//! Temporary credentials are renewed five minutes before they expire, by one caller while the others
//! wait. If renewing fails, the old ones are used while they last and it is tried again after 30 s;
//! after that, calls fail as `Transient`, since the way to the provider may have a fault like any other.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::UNIX_EPOCH;

use aws_credential_types::Credentials as Keys;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;

use super::sign::{AmzDate, Signer};
use crate::clock;
use crate::config::settings::StoreSettings;

/// Renew this long before the end.
const AHEAD_MS: i64 = 5 * 60 * 1000;
/// Wait this long after a renewal that failed.
const AGAIN_MS: i64 = 30 * 1000;

/// A signer, and when its keys must be renewed.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) signer: Signer,
    keys: Keys,
    renew_at_ms: i64,
}

/// The credentials of one store.
pub(super) struct Credentials {
    provider: SharedCredentialsProvider,
    region: String,
    ready: RwLock<Option<Arc<Ready>>>,
    renewal: Mutex<()>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("region", &self.region).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Credentials from the settings; from the AWS default chain if they name none.
    pub(super) async fn load(settings: &StoreSettings) -> Result<Self, String> {
        let access_key = given(settings.access_key.as_ref(), settings.access_key_file.as_deref())?;
        let secret_key = given(settings.secret_key.as_ref(), settings.secret_key_file.as_deref())?;
        let provider = match (access_key, secret_key) {
            (Some(access_key), Some(secret_key)) => {
                let token = settings.session_token.as_ref().map(|t| t.expose_secret().to_owned());
                let (access_key, secret_key) =
                    (access_key.expose_secret(), secret_key.expose_secret());
                let keys = Keys::new(access_key, secret_key, token, None, "evermirror settings");
                SharedCredentialsProvider::new(keys)
            }
            (None, None) => super::admin::default_chain(&settings.region).await?,
            (Some(_), None) => return Err("there is an access_key but no secret_key".to_owned()),
            (None, Some(_)) => return Err("there is a secret_key but no access_key".to_owned()),
        };
        Ok(Self {
            provider,
            region: settings.region.clone(),
            ready: RwLock::new(None),
            renewal: Mutex::new(()),
        })
    }

    /// Where the keys come from, for the SDK.
    pub(super) fn provider(&self) -> SharedCredentialsProvider {
        self.provider.clone()
    }

    /// A signer for `date`; `now_ms` is the same moment by this machine's clock.
    pub(super) async fn ready(&self, date: AmzDate, now_ms: i64) -> Result<Arc<Ready>, String> {
        let fits =
            |ready: &Arc<Ready>| ready.signer.day() == date.day() && now_ms < ready.renew_at_ms;
        if let Some(ready) = self.current().filter(fits) {
            return Ok(ready);
        }
        let _renewing = self.renewal.lock().await;
        let current = self.current();
        if let Some(ready) = current.as_ref().filter(|ready| fits(ready)) {
            return Ok(Arc::clone(ready));
        }
        let (keys, renew_at_ms) = match current {
            Some(ready) if now_ms < ready.renew_at_ms => (ready.keys.clone(), ready.renew_at_ms),
            current => self.renewed(current, now_ms).await?,
        };
        let ready = Arc::new(self.prepare(keys, renew_at_ms, date)?);
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&ready));
        Ok(ready)
    }

    /// The store called the keys in `used` expired: ask for new ones before the next call.
    pub(super) fn refused(&self, used: &Arc<Ready>) {
        let mut ready = self.ready.write().unwrap_or_else(PoisonError::into_inner);
        if ready.as_ref().is_some_and(|ready| Arc::ptr_eq(ready, used)) {
            *ready = None;
        }
    }

    fn current(&self) -> Option<Arc<Ready>> {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn renewed(&self, old: Option<Arc<Ready>>, now_ms: i64) -> Result<(Keys, i64), String> {
        match (self.provider.provide_credentials().await, old) {
            (Ok(keys), _) => {
                let renew_at_ms = expiry_ms(&keys).map_or(i64::MAX, |at| {
                    // Keys that live shorter than that are asked for again, but not on every call.
                    at.saturating_sub(AHEAD_MS).max(now_ms.saturating_add(AGAIN_MS))
                });
                Ok((keys, renew_at_ms))
            }
            (Err(error), Some(old)) if expiry_ms(&old.keys).is_none_or(|at| now_ms < at) => {
                let error = super::failure::describe(&error);
                tracing::warn!(%error, "Could not renew the credentials; using the old ones.");
                Ok((old.keys.clone(), now_ms.saturating_add(AGAIN_MS)))
            }
            (Err(error), _) => Err(format!("no credentials: {}", super::failure::describe(&error))),
        }
    }

    fn prepare(&self, keys: Keys, renew_at_ms: i64, date: AmzDate) -> Result<Ready, String> {
        let token = keys.session_token().map(|token| {
            HeaderValue::from_str(token).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        let token = token.transpose().map_err(|_| "the session token is not plain text")?;
        let secret = SecretString::from(keys.secret_access_key());
        let signer = Signer::new(keys.access_key_id(), &secret, token, &self.region, date);
        Ok(Ready { signer, keys, renew_at_ms })
    }
}

fn expiry_ms(keys: &Keys) -> Option<i64> {
    let since = keys.expiry()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(clock::signed_millis(since))
}

/// A secret given directly, or in a file (which may end with a line end).
fn given(
    value: Option<&SecretString>,
    file: Option<&std::path::Path>,
) -> Result<Option<SecretString>, String> {
    let (None, Some(path)) = (value, file) else { return Ok(value.cloned()) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("failed to read {}: {error}", path.display()))?;
    Ok(Some(SecretString::from(text.trim())))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::{ProvideCredentials, future};

    use super::*;

    const MINUTE_MS: i64 = 60_000;

    /// Gives one of the prepared results each time it is asked: minutes to live, or a failure.
    #[derive(Debug)]
    struct Scripted(Mutex<Vec<Option<i64>>>);

    impl ProvideCredentials for Scripted {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let mut left = self.0.lock().unwrap();
            let next = left.remove(0);
            let result = next.map(|minutes| {
                let expiry = UNIX_EPOCH + Duration::from_mins(minutes.try_into().unwrap());
                Keys::new(format!("key-{}", left.len()), "s", None, Some(expiry), "test")
            });
            future::ProvideCredentials::ready(
                result.ok_or_else(|| CredentialsError::provider_error("down")),
            )
        }
    }

    fn credentials(script: &[Option<i64>]) -> Credentials {
        Credentials {
            provider: SharedCredentialsProvider::new(Scripted(Mutex::new(script.to_vec()))),
            region: "r".to_owned(),
            ready: RwLock::new(None),
            renewal: tokio::sync::Mutex::new(()),
        }
    }

    async fn key_at(credentials: &Credentials, minute: i64) -> Result<String, String> {
        let ms = minute * MINUTE_MS;
        let ready = credentials.ready(AmzDate::at(ms), ms).await?;
        Ok(ready.keys.access_key_id().to_owned())
    }

    #[tokio::test]
    async fn temporary_credentials_are_renewed_before_they_expire() {
        let credentials = credentials(&[Some(60), Some(120)]);
        for (minute, key) in [(0, "key-1"), (54, "key-1"), (56, "key-0"), (57, "key-0")] {
            assert_eq!(key_at(&credentials, minute).await.unwrap(), key, "minute {minute}");
        }
    }

    #[tokio::test]
    async fn credentials_that_cannot_be_renewed_are_used_while_they_last() {
        let credentials = credentials(&[Some(60), None, None]);
        assert_eq!(key_at(&credentials, 0).await.unwrap(), "key-2");
        assert_eq!(key_at(&credentials, 56).await.unwrap(), "key-2");
        assert!(key_at(&credentials, 61).await.unwrap_err().contains("down"));
    }

    #[tokio::test]
    async fn credentials_that_the_store_calls_expired_are_asked_for_again() {
        let credentials = credentials(&[Some(60), Some(60)]);
        let used = credentials.ready(AmzDate::at(0), 0).await.unwrap();
        credentials.refused(&used);
        assert_eq!(key_at(&credentials, 0).await.unwrap(), "key-0");
        credentials.refused(&used);
        assert_eq!(key_at(&credentials, 0).await.unwrap(), "key-0", "these were not refused");
    }

    #[tokio::test]
    async fn a_new_day_needs_a_new_signer_but_no_new_credentials() {
        let credentials = credentials(&[Some(60 * 48)]);
        assert_eq!(key_at(&credentials, 0).await.unwrap(), "key-0");
        assert_eq!(key_at(&credentials, 60 * 24).await.unwrap(), "key-0");
        assert_eq!(credentials.current().unwrap().signer.day(), "19700102");
    }
}
