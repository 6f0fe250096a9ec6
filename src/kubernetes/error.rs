//! What a Kubernetes API server refused, and who must mend it.

use std::error::Error;
use std::fmt;

use super::Resource;

/// Why a call failed, by what must be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The credentials may not do this.
    Forbidden,
    /// The credentials are not accepted.
    Unauthorized,
    /// The object is not there.
    NotFound,
    /// The cluster has no such kind of objects.
    NoSuchKind,
    /// An object of this name is there already.
    Exists,
    /// The object was changed by someone else meanwhile.
    Conflict,
    /// The server will not do this as it was asked.
    Refused,
    /// No answer, or one that asks to try again.
    Unreachable,
}

impl Failure {
    /// By the answer's status and `reason`.
    pub(super) fn of(code: u16, reason: &str, about_an_object: bool) -> Self {
        match (code, reason) {
            (401, _) => Self::Unauthorized,
            (403, _) => Self::Forbidden,
            (404, _) if about_an_object => Self::NotFound,
            (404, _) => Self::NoSuchKind,
            (409, "AlreadyExists") => Self::Exists,
            (409, _) => Self::Conflict,
            (429 | 500.., _) => Self::Unreachable,
            _ => Self::Refused,
        }
    }
}

/// A call that failed.
#[derive(Debug, Clone)]
pub struct KubernetesError {
    /// Why.
    pub failure: Failure,
    /// As RBAC names it.
    pub verb: &'static str,
    /// Of what kind.
    pub resource: Resource,
    /// Where, if the kind is in namespaces.
    pub namespace: Option<String>,
    /// On which object, if on one.
    pub name: Option<String>,
    /// What the server said.
    pub message: String,
}

impl Error for KubernetesError {}

impl fmt::Display for KubernetesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Resource { group, plural, .. } = self.resource;
        write!(f, "failed to {} {plural}", self.verb)?;
        if let Some(name) = &self.name {
            write!(f, " {}", name.escape_debug())?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, " in namespace {}", namespace.escape_debug())?;
        }
        let message = self.message.trim().escape_debug();
        match self.failure {
            Failure::Forbidden => {
                let role = match &self.namespace {
                    Some(namespace) => format!("a Role in namespace {}", namespace.escape_debug()),
                    None => "a ClusterRole".to_owned(),
                };
                write!(
                    f,
                    ": the credentials may not. Add to {role}: {{apiGroups: [\"{group}\"], resources: [{plural}], verbs: [{}]}}, \
                     and bind it to them. The server says: {message}",
                    self.verb
                )
            }
            Failure::Unauthorized => {
                write!(
                    f,
                    ": the credentials are not accepted; renew the kubeconfig or the service account's token. The server says: {message}"
                )
            }
            Failure::NoSuchKind if !group.is_empty() => {
                write!(
                    f,
                    ": the cluster has no {group}/{}, or no such namespace. The server says: {message}",
                    self.resource.version
                )
            }
            Failure::NoSuchKind
            | Failure::NotFound
            | Failure::Exists
            | Failure::Conflict
            | Failure::Refused
            | Failure::Unreachable => write!(f, ": {message}"),
        }
    }
}

/// An error with its causes.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::{SNAPSHOT_CLASSES, SNAPSHOTS};

    #[test]
    fn who_may_not_learns_which_verb_is_missing() {
        let error = |resource, namespace: Option<&str>| KubernetesError {
            failure: Failure::of(403, "Forbidden", false),
            verb: "list",
            resource,
            namespace: namespace.map(str::to_owned),
            name: None,
            message: "no".to_owned(),
        };
        let text = error(SNAPSHOTS, Some("ilum")).to_string();
        assert_eq!(
            text,
            "failed to list volumesnapshots in namespace ilum: the credentials may not. Add to a Role in namespace ilum: \
             {apiGroups: [\"snapshot.storage.k8s.io\"], resources: [volumesnapshots], verbs: [list]}, and bind it to them. \
             The server says: no"
        );
        assert!(error(SNAPSHOT_CLASSES, None).to_string().contains("Add to a ClusterRole: "));
    }

    #[test]
    fn an_answer_is_told_by_its_status_and_reason() {
        assert_eq!(Failure::of(404, "NotFound", true), Failure::NotFound);
        assert_eq!(Failure::of(404, "", false), Failure::NoSuchKind);
        assert_eq!(Failure::of(409, "AlreadyExists", true), Failure::Exists);
        assert_eq!(Failure::of(409, "Conflict", true), Failure::Conflict);
        assert_eq!(Failure::of(503, "", false), Failure::Unreachable);
        assert_eq!(Failure::of(422, "Invalid", true), Failure::Refused);
    }
}
