//! `evermirror doctor`: one line for each check, and what to do.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::logging;
use super::paint::{Paint, plain};
use crate::config;
use crate::doctor::{self, Check, DoctorOptions, Level};
use crate::oneshot::Scope;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The TOML file of `run`; without one, everything comes from `EVERMIRROR__TABLE__KEY` variables
    #[arg(long, short, value_name = "FILE", env = "EVERMIRROR_CONFIG")]
    config: Option<PathBuf>,
    /// Only this source bucket; may be given several times [default: all that are configured]
    #[arg(long, value_name = "BUCKET")]
    bucket: Vec<String>,
    /// The source sends events here; may be given several times [default: the usual targets]
    #[arg(long, value_name = "ARN")]
    arn: Vec<String>,
    /// Put no object at the source
    #[arg(long)]
    no_canary: bool,
    /// How long a canary may take for each step
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Ask the running evermirror at this address [default: `web.listen`]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Print the checks as one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Status 0: no problem was found. 1: there are problems.
pub async fn execute(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let settings = config::load_without_intake(args.config.as_deref(), config::environment())?;
    logging::init_quietly(&settings.log)?;
    let scope = Scope::new(settings, &args.bucket, "", args.json)?;
    let options = DoctorOptions {
        arns: args.arn,
        no_canary: args.no_canary,
        patience: args.timeout,
        url: args.url,
    };
    let paint = Paint::on(io::stdout().is_terminal());
    let width = terminal_width();
    let mut checks = Vec::new();
    let mut written = Ok(());
    let tell = |check: Check| {
        if !args.json && written.is_ok() {
            written = show(&mut io::stdout().lock(), &check, paint, width);
        }
        checks.push(check);
    };
    Box::pin(doctor::run(&scope.settings, &options, tell)).await?;
    written?;
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    let mut out = io::stdout().lock();
    if args.json {
        let answer = json!({ "problems": problems, "warnings": warnings, "checks": checks });
        writeln!(out, "{answer}")?;
    } else {
        let plural = |number: usize, word: &str| {
            format!("{number} {word}{}", if number == 1 { "" } else { "s" })
        };
        writeln!(out, "\n{}, {}", plural(problems, "problem"), plural(warnings, "warning"))?;
    }
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the text begins.
const INDENT: usize = 24;

/// One line; below it, what to do. On a terminal long lines are broken between words.
fn show(out: &mut impl Write, check: &Check, paint: Paint, width: Option<usize>) -> io::Result<()> {
    let level = match check.level {
        Level::Ok => paint.green("ok     "),
        Level::Warning => paint.yellow("warning"),
        Level::Problem => paint.red("PROBLEM"),
    };
    let bucket = check.bucket.as_deref().map(|bucket| format!("{bucket}: "));
    let says = plain(&format!("{}{}", bucket.unwrap_or_default(), check.says));
    writeln!(out, "{level}  {:13}  {}", check.area, broken(&says, INDENT, width))?;
    if let Some(advice) = &check.advice {
        writeln!(out, "{:INDENT$}-> {}", "", broken(&plain(advice), INDENT + 3, width))?;
    }
    Ok(())
}

/// Breaks `text` into lines that leave room for an indent, if there is a width to keep.
fn broken(text: &str, indent: usize, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    let room = width.saturating_sub(indent).max(40);
    let (mut lines, mut length) = (String::new(), 0);
    for word in text.split(' ') {
        let word_length = word.chars().count();
        if length > 0 && length + 1 + word_length > room {
            lines.push('\n');
            lines.extend(std::iter::repeat_n(' ', indent));
            length = 0;
        } else if length > 0 {
            lines.push(' ');
            length += 1;
        }
        lines.push_str(word);
        length += word_length;
    }
    lines
}

/// The terminal's width, if stdout is one.
fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok())??;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words_and_nothing_is_lost() {
        let text = "one two three four five six seven eight nine ten eleven twelve thirteen";
        let lines = broken(text, 10, Some(50));
        assert!(lines.lines().count() > 1);
        assert!(lines.lines().all(|line| line.trim_start().len() <= 40), "{lines}");
        assert_eq!(lines.split_whitespace().collect::<Vec<_>>().join(" "), text);
        assert_eq!(broken(text, 10, None), text);
    }
}
