//! Configuration as a whole, from a file and an environment to settings or an error.

use super::problem::Quotes;
use super::{ConfigError, Loaded, load};

mod environment;
mod golden;
mod secrets;
mod shipped;

/// The least that is valid.
const LEAST: &str = r#"data_dir = "/var/lib/evermirror"
[source]
endpoint = "http://source:9000"
[target]
endpoint = "http://target:9000"
[[buckets]]
source = "files"
[intake.webhook]
"#;

fn load_text(text: &str, env: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let name = Some("evermirror.toml".to_owned());
    load::parse(Quotes { name, text: text.to_owned(), ..Quotes::default() }, variables(env), true)
}

fn error_of(text: &str, env: &[(&str, &str)]) -> String {
    load_text(text, env).expect_err("this configuration is wrong").to_string()
}

fn variables(env: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let owned: Vec<_> = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    owned.into_iter()
}
