//! The Kubernetes API, as far as evermirror needs it: six verbs on a few kinds, in plain JSON.
//!
//! The only file that names the client (`kube`), which is there for what is not ours to write: kubeconfig
//! files with their credential plug-ins, and the service account of a pod with its changing token.
//! **On error** nothing is tried again here; an error says what was asked of what, and who must mend it.
//! Every call ends within its limit. **On cancellation** the request may or may not have been carried out.

mod error;

use std::time::Duration;

use http::{Method, Request};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

pub use error::{Failure, KubernetesError};

/// How long one call may take, unless the caller says otherwise.
const PATIENCE: Duration = Duration::from_secs(15);

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// The API group; empty for the core one.
    pub group: &'static str,
    /// The group's version.
    pub version: &'static str,
    /// As RBAC and paths name it.
    pub plural: &'static str,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

impl Resource {
    const fn new(group: &'static str, version: &'static str, plural: &'static str) -> Self {
        Self { group, version, plural, namespaced: true }
    }

    const fn of_the_cluster(self) -> Self {
        Self { namespaced: false, ..self }
    }
}

/// `leases` of coordination.k8s.io.
pub const LEASES: Resource = Resource::new("coordination.k8s.io", "v1", "leases");
/// `pods`.
pub const PODS: Resource = Resource::new("", "v1", "pods");
/// `persistentvolumeclaims`.
pub const CLAIMS: Resource = Resource::new("", "v1", "persistentvolumeclaims");
/// `storageclasses` of storage.k8s.io.
pub const STORAGE_CLASSES: Resource =
    Resource::new("storage.k8s.io", "v1", "storageclasses").of_the_cluster();
/// `volumesnapshots` of snapshot.storage.k8s.io.
pub const SNAPSHOTS: Resource = Resource::new("snapshot.storage.k8s.io", "v1", "volumesnapshots");
/// `volumesnapshotclasses` of snapshot.storage.k8s.io.
pub const SNAPSHOT_CLASSES: Resource =
    Resource::new("snapshot.storage.k8s.io", "v1", "volumesnapshotclasses").of_the_cluster();

/// There is no way to a Kubernetes API.
#[derive(Debug, thiserror::Error)]
#[error(
    "failed to find a Kubernetes cluster: {0}; run in a pod with a service account, or set KUBECONFIG to a kubeconfig file"
)]
pub struct ConnectError(String);

/// One cluster, and a namespace in it.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    namespace: String,
    limit: Duration,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Finds the cluster as kubectl does: by `KUBECONFIG`, `~/.kube/config`, or the pod's service account.
    /// Sends nothing. Without `namespace`, it is that of the pod or of the current context.
    pub async fn connect(namespace: Option<&str>) -> Result<Self, ConnectError> {
        let config =
            kube::Config::infer().await.map_err(|error| ConnectError(error.to_string()))?;
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = kube::Client::try_from(config);
        let client = client.map_err(|error| ConnectError(error.to_string()))?;
        Ok(Self { client, namespace, limit: PATIENCE })
    }

    /// No call may take longer.
    #[must_use]
    pub fn limited(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The namespace in which namespaced objects are looked for.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// One object; `None` if it is not there.
    pub async fn get(
        &self,
        resource: Resource,
        name: &str,
    ) -> Result<Option<Value>, KubernetesError> {
        match self.call("get", Method::GET, resource, Some(name), "", None).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.failure == Failure::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects that `selector` (labels, as kubectl's `-l` takes them; empty for all) chooses.
    pub async fn list(
        &self,
        resource: Resource,
        selector: &str,
    ) -> Result<Vec<Value>, KubernetesError> {
        let query = match selector {
            "" => String::new(),
            _ => format!("?labelSelector={}", utf8_percent_encode(selector, NON_ALPHANUMERIC)),
        };
        let mut list = self.call("list", Method::GET, resource, None, &query, None).await?;
        let items = list.get_mut("items").and_then(Value::as_array_mut);
        Ok(items.map(std::mem::take).unwrap_or_default())
    }

    /// Makes an object; returns it as the server keeps it.
    pub async fn create(
        &self,
        resource: Resource,
        object: &Value,
        dry_run: bool,
    ) -> Result<Value, KubernetesError> {
        let query = if dry_run { "?dryRun=All" } else { "" };
        self.call("create", Method::POST, resource, None, query, Some(object)).await
    }

    /// Replaces an object, if nobody has changed it since its `resourceVersion` was read; returns it as the
    /// server keeps it.
    pub async fn replace(
        &self,
        resource: Resource,
        name: &str,
        object: &Value,
    ) -> Result<Value, KubernetesError> {
        self.call("update", Method::PUT, resource, Some(name), "", Some(object)).await
    }

    /// Changes the parts of an object that `patch` names (RFC 7396).
    pub async fn patch(
        &self,
        resource: Resource,
        name: &str,
        patch: &Value,
    ) -> Result<Value, KubernetesError> {
        self.call("patch", Method::PATCH, resource, Some(name), "", Some(patch)).await
    }

    /// Deletes the object, if it is still this one; returns whether it was there.
    pub async fn delete(
        &self,
        resource: Resource,
        name: &str,
        uid: &str,
    ) -> Result<bool, KubernetesError> {
        let options =
            json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": uid } });
        match self.call("delete", Method::DELETE, resource, Some(name), "", Some(&options)).await {
            Ok(_) => Ok(true),
            Err(error) if error.failure == Failure::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn call(
        &self,
        verb: &'static str,
        method: Method,
        resource: Resource,
        name: Option<&str>,
        query: &str,
        body: Option<&Value>,
    ) -> Result<Value, KubernetesError> {
        let namespace = resource.namespaced.then(|| self.namespace.clone());
        let failed = |failure, message| KubernetesError {
            failure,
            verb,
            resource,
            namespace: namespace.clone(),
            name: name.map(str::to_owned),
            message,
        };
        let content = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{query}", path(resource, namespace.as_deref(), name)))
            .header(http::header::CONTENT_TYPE, content)
            .body(body.map(|body| body.to_string().into_bytes()).unwrap_or_default())
            .map_err(|error| failed(Failure::Refused, error.to_string()))?;
        match tokio::time::timeout(self.limit, self.client.request::<Value>(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => {
                let about_an_object = status.details.as_ref().is_some_and(|d| !d.name.is_empty());
                let failure = Failure::of(status.code, &status.reason, about_an_object);
                Err(failed(failure, status.message))
            }
            Ok(Err(error)) => Err(failed(Failure::Unreachable, error::causes(&error))),
            Err(_) => {
                let message = format!("no answer within {:?}", self.limit);
                Err(failed(Failure::Unreachable, message))
            }
        }
    }
}

/// The part of an object at this JSON pointer (`/status/phase`); null if there is none.
pub fn at<'a>(object: &'a Value, pointer: &str) -> &'a Value {
    static NULL: Value = Value::Null;
    object.pointer(pointer).unwrap_or(&NULL)
}

/// The text there, unless it is empty.
pub fn text_at(object: &Value, pointer: &str) -> Option<String> {
    at(object, pointer).as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn path(resource: Resource, namespace: Option<&str>, name: Option<&str>) -> String {
    let Resource { group, version, plural, .. } = resource;
    let encoded = |segment: &str| utf8_percent_encode(segment, NON_ALPHANUMERIC).to_string();
    let api = if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    };
    let place = namespace.map(|name| format!("/namespaces/{}", encoded(name))).unwrap_or_default();
    let name = name.map(|name| format!("/{}", encoded(name))).unwrap_or_default();
    format!("{api}{place}/{plural}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leads_out_of_its_kind() {
        assert_eq!(path(PODS, Some("ns"), Some("p1")), "/api/v1/namespaces/ns/pods/p1");
        assert_eq!(
            path(SNAPSHOT_CLASSES, None, None),
            "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses"
        );
        let hostile = path(SNAPSHOTS, Some("a/b"), Some("../../leases?x#y"));
        assert!(
            hostile.ends_with("/namespaces/a%2Fb/volumesnapshots/%2E%2E%2F%2E%2E%2Fleases%3Fx%23y"),
            "{hostile}"
        );
    }
}
