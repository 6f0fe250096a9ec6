//! Encryption with a passphrase, in an envelope that says how, so that it can be opened without us:
//! the key is Argon2id of passphrase and salt, the text `XChaCha20-Poly1305` with the envelope's other
//! fields as associated data, so that nothing of it can be changed unnoticed.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

const FORMAT: &str = "evermirror-capture-encrypted";
const VERSION: u32 = 1;
const KDF: &str = "argon2id";
const CIPHER: &str = "xchacha20-poly1305";
/// Of RFC 9106's second recommendation (64 MiB, three passes), with one lane.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
/// What an envelope may ask for at most; it was written by others.
const MOST_MEMORY_KIB: u32 = 1 << 20;
const MOST_PASSES: u32 = 100;

/// An encrypted document.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope {
    format: String,
    version: u32,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    salt: String,
    cipher: String,
    nonce: String,
    ciphertext: String,
}

impl Envelope {
    /// What is not encrypted and must not be changed all the same.
    fn associated(&self) -> String {
        let Self { format, version, kdf, memory_kib, passes, salt, cipher, nonce, .. } = self;
        format!("{format};{version};{kdf};{memory_kib};{passes};{salt};{cipher};{nonce}")
    }

    fn cipher(&self, passphrase: &SecretString) -> Result<(XChaCha20Poly1305, XNonce), String> {
        let damaged = |what: &str| format!("it is damaged: its {what} cannot be read");
        if self.memory_kib > MOST_MEMORY_KIB || self.passes > MOST_PASSES {
            return Err(damaged("cost of the key"));
        }
        let salt = BASE64_STANDARD.decode(&self.salt).map_err(|_| damaged("salt"))?;
        let nonce = BASE64_STANDARD.decode(&self.nonce).map_err(|_| damaged("nonce"))?;
        let nonce: [u8; 24] = nonce.try_into().map_err(|_| damaged("nonce"))?;
        let params = Params::new(self.memory_kib, self.passes, 1, Some(32))
            .map_err(|_| damaged("cost of the key"))?;
        let mut key = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose_secret().as_bytes(), &salt, &mut key)
            .map_err(|_| damaged("salt"))?;
        Ok((XChaCha20Poly1305::new(&key.into()), nonce.into()))
    }
}

/// Encrypts `text`. Takes some tenths of a second of one core.
pub(super) fn seal(text: &[u8], passphrase: &SecretString) -> Result<Vec<u8>, String> {
    let mut envelope = Envelope {
        format: FORMAT.to_owned(),
        version: VERSION,
        kdf: KDF.to_owned(),
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        salt: BASE64_STANDARD.encode(rand::random::<[u8; 16]>()),
        cipher: CIPHER.to_owned(),
        nonce: BASE64_STANDARD.encode(rand::random::<[u8; 24]>()),
        ciphertext: String::new(),
    };
    let (cipher, nonce) = envelope.cipher(passphrase)?;
    let aad = envelope.associated();
    let sealed = cipher
        .encrypt(&nonce, Payload { msg: text, aad: aad.as_bytes() })
        .map_err(|_| "the document is too large to be encrypted".to_owned())?;
    envelope.ciphertext = BASE64_STANDARD.encode(sealed);
    serde_json::to_vec_pretty(&envelope).map_err(|error| error.to_string())
}

/// The text of a document that may be encrypted. The error is a sentence without its end.
pub(super) fn open(
    document: Vec<u8>,
    passphrase: Option<&SecretString>,
) -> Result<Vec<u8>, String> {
    let Ok(envelope) = serde_json::from_slice::<Envelope>(&document) else { return Ok(document) };
    let known = (FORMAT, VERSION, KDF, CIPHER);
    if (&*envelope.format, envelope.version, &*envelope.kdf, &*envelope.cipher) != known {
        return Err("it is encrypted in a way that this evermirror does not know".to_owned());
    }
    let Some(passphrase) = passphrase else {
        return Err(
            "it is encrypted: set `passphrase` or `passphrase_file` in [capture]".to_owned()
        );
    };
    let (cipher, nonce) = envelope.cipher(passphrase)?;
    let sealed = BASE64_STANDARD
        .decode(&envelope.ciphertext)
        .map_err(|_| "it is damaged: its text cannot be read".to_owned())?;
    let aad = envelope.associated();
    cipher.decrypt(&nonce, Payload { msg: &sealed, aad: aad.as_bytes() }).map_err(|_| {
        "the passphrase is not the one it was written with, or it is damaged".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_passphrase_opens_what_was_sealed_and_no_byte_may_change() {
        let (right, wrong) = (SecretString::from("right"), SecretString::from("wrong"));
        let sealed = seal(b"the text", &right).unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("the text"));
        assert_eq!(open(sealed.clone(), Some(&right)).unwrap(), b"the text");
        assert!(open(sealed.clone(), Some(&wrong)).unwrap_err().contains("passphrase"));
        assert!(open(sealed.clone(), None).unwrap_err().contains("encrypted"));
        let mut envelope: Envelope = serde_json::from_slice(&sealed).unwrap();
        envelope.passes = 2;
        let changed = serde_json::to_vec(&envelope).unwrap();
        assert!(open(changed, Some(&right)).is_err());
        envelope.memory_kib = u32::MAX;
        let costly = serde_json::to_vec(&envelope).unwrap();
        assert!(open(costly, Some(&right)).unwrap_err().contains("cost"));
        assert_eq!(open(b"{}".to_vec(), None).unwrap(), b"{}", "what is plain stays as it is");
    }
}
