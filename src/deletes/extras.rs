//! The keys that only the target has, set aside until the end of the pass shows what to do with them.
//!
//! A plain temporary file, so that their number costs no memory. It need not survive a crash: only a
//! complete pass may delete, and after a crash there is a new one. On error the pass fails, and
//! deletes nothing.

use std::io;
use std::path::PathBuf;

use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};

/// A list of keys on disk; the file is there from the first key until this is dropped.
#[derive(Debug)]
pub(crate) struct Extras {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    count: u64,
}

impl Extras {
    /// An empty list, which will use this file.
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, file: None, count: 0 }
    }

    /// Adds a key.
    pub(crate) async fn push(&mut self, key: &str) -> io::Result<()> {
        let file = if let Some(file) = &mut self.file {
            file
        } else {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            self.file.insert(BufWriter::new(options.open(&self.path).await?))
        };
        file.write_u64_le(key.len() as u64).await?;
        file.write_all(key.as_bytes()).await?;
        self.count += 1;
        Ok(())
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Begins to read them from the first on, in the order in which they came.
    pub(crate) async fn read(&mut self) -> io::Result<Keys> {
        let Some(file) = &mut self.file else { return Ok(Keys { file: None, left: 0 }) };
        file.flush().await?;
        let file = File::open(&self.path).await?;
        Ok(Keys { file: Some(BufReader::new(file)), left: self.count })
    }
}

impl Drop for Extras {
    fn drop(&mut self) {
        if self.count > 0 {
            // What stays is truncated by the next pass.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// The keys of a list.
#[derive(Debug)]
pub(crate) struct Keys {
    file: Option<BufReader<File>>,
    left: u64,
}

impl Keys {
    /// The next `limit` keys, fewer at the end, none behind it.
    pub(crate) async fn page(&mut self, limit: usize) -> io::Result<Vec<String>> {
        let Some(file) = &mut self.file else { return Ok(Vec::new()) };
        let mut page = Vec::new();
        while self.left > 0 && page.len() < limit {
            let length = file.read_u64_le().await?;
            let mut key = String::new();
            let read = (&mut *file).take(length).read_to_string(&mut key).await?;
            if read as u64 != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            page.push(key);
            self.left -= 1;
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_come_back_in_order_and_the_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("extras");
        let mut extras = Extras::new(path.clone());
        assert!(extras.read().await.unwrap().page(9).await.unwrap().is_empty());
        let keys: Vec<_> = (0..1_000).map(|n| format!("\n{n}\u{1F600}{}", "k".repeat(n))).collect();
        for key in &keys {
            extras.push(key).await.unwrap();
        }
        assert_eq!(extras.count(), 1_000);
        let mut list = extras.read().await.unwrap();
        let mut read = Vec::new();
        loop {
            let page = list.page(300).await.unwrap();
            if page.is_empty() {
                break;
            }
            read.extend(page);
        }
        assert_eq!(read, keys);
        drop(extras);
        assert!(!path.exists());
    }
}
