//! `evermirror check-config` as an operator runs it.

use std::process::{Command, Output};

fn check_config(file: Option<&str>, env: &[(&str, &str)]) -> Output {
    let ours =
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("EVERMIRROR"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_evermirror"));
    ours.for_each(|(name, _)| {
        command.env_remove(name);
    });
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config"));
    command.arg("check-config").args(file).envs(env.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_valid_configuration_is_printed_with_its_secrets_hidden() {
    let env = [("EVERMIRROR__TARGET__SECRET_KEY", "CANARY"), ("RUST_LOG", "trace")];
    let output = check_config(Some("examples/minio-webhook.toml"), &env);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    assert!(stdout.ends_with("\nconfiguration is valid\n"), "{stdout}");
    let line = "secret_key = \"<hidden>\" # from EVERMIRROR__TARGET__SECRET_KEY\n";
    assert!(stdout.contains(line), "{stdout}");
    assert!(!stdout.contains("CANARY") && !stdout.contains("replace-this"), "{stdout}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn an_invalid_configuration_is_refused_on_stderr_with_status_2() {
    let env = [("EVERMIRROR__WEB__AUTH_TOKN", "CANARY")];
    let output = check_config(Some("evermirror.toml"), &env);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    assert_eq!(
        text(&output.stderr),
        "error: EVERMIRROR__WEB__AUTH_TOKN: there is no such key; \
         did you mean EVERMIRROR__WEB__AUTH_TOKEN?\n"
    );
}

#[test]
fn the_file_can_be_named_by_a_variable() {
    let output = check_config(None, &[("EVERMIRROR_CONFIG", "examples/sidecar.toml")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
