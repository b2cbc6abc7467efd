//! A test's own namespaces, and the Services in them. Does I/O.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};

use crate::cluster::Cluster;
use crate::delete::delete_if_exists;
use crate::failure::Failure;
use crate::mode::TestMode;
use crate::polling::eventually;
use crate::ports;
use crate::service::ServiceBuilder;

/// A namespace that was created for one test.
pub struct Namespace {
    test_run: Arc<TestRun>,
    name: String,
}

/// The state that all namespaces of one test share.
pub(crate) struct TestRun {
    pub(crate) cluster: Cluster,
    pub(crate) mode: TestMode,
    namespace_names: Mutex<Vec<String>>,
}

impl TestRun {
    pub(crate) fn new(cluster: Cluster, mode: TestMode) -> Arc<Self> {
        Arc::new(Self { cluster, mode, namespace_names: Mutex::default() })
    }

    /// Creates a namespace, and records its name for the cleanup.
    pub(crate) async fn create_namespace(self: &Arc<Self>, name: String) -> Result<Namespace, Failure> {
        let object = KubeNamespace {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            ..KubeNamespace::default()
        };
        let api = Api::<KubeNamespace>::all(self.cluster.client.clone());
        api.create(&PostParams::default(), &object).await?;
        self.namespace_names.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        Ok(Namespace { test_run: self.clone(), name })
    }

    /// Returns the names of the test's namespaces.
    pub(crate) fn namespace_names(&self) -> Vec<String> {
        self.namespace_names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Namespace {
    /// Returns the namespace's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the mode of the test.
    #[must_use]
    pub fn mode(&self) -> TestMode {
        self.test_run.mode
    }

    /// Returns the cluster under test.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.test_run.cluster
    }

    /// Returns the connection to the API server.
    pub(crate) fn client(&self) -> Client {
        self.test_run.cluster.client.clone()
    }

    /// Creates another namespace for the same test. The new namespace's name is this namespace's name with a suffix.
    pub async fn create_another_namespace(&self, suffix: &str) -> Result<Self, Failure> {
        self.test_run.create_namespace(format!("{}-{suffix}", self.name)).await
    }

    /// Returns `N` port numbers that are free: pods, Services and other tests do not use them.
    pub async fn allocate_ports<const N: usize>(&self) -> Result<[u16; N], Failure> {
        ports::allocate_ports(&self.test_run.cluster.client).await
    }

    /// Returns `N` port numbers that are free: pods, Services and other tests do not use them. The numbers are in the
    /// range of nodePorts, so that a Service may also use them as its nodePorts.
    pub async fn allocate_node_ports<const N: usize>(&self) -> Result<[u16; N], Failure> {
        ports::allocate_node_ports(&self.test_run.cluster.client).await
    }

    /// Creates or changes a Service by server-side apply. The API server removes fields that the builder no longer
    /// sets. If the builder does not choose the workload, the mode of the test chooses the workload.
    pub async fn apply(&self, service: &ServiceBuilder) -> Result<Service, Failure> {
        let params = PatchParams::apply("e2e").force();
        let object = service.in_mode(self.mode()).build();
        Ok(self.services().patch(service.name(), &params, &Patch::Apply(object)).await?)
    }

    /// Creates a Service that is younger than `older`. Creation times are whole seconds. If two Services have the same
    /// creation time, the operator compares their names. The function therefore repeats the creation until the times
    /// differ.
    pub async fn apply_younger(
        &self,
        older: &ServiceBuilder,
        younger: &ServiceBuilder,
    ) -> Result<(), Failure> {
        let older_created_at = self.get_service(older).await?.metadata.creation_timestamp;
        eventually("the creation times of the two Services differ", async || {
            if self.apply(younger).await?.metadata.creation_timestamp != older_created_at {
                return Ok(());
            }
            self.delete_service(younger).await?;
            Err(Failure::UnexpectedState(format!("both Services were created at {older_created_at:?}")))
        })
        .await
    }

    /// Reads a Service from the API server.
    pub async fn get_service(&self, service: &ServiceBuilder) -> Result<Service, Failure> {
        Ok(self.services().get(service.name()).await?)
    }

    /// Deletes a Service.
    pub async fn delete_service(&self, service: &ServiceBuilder) -> Result<(), Failure> {
        self.services().delete(service.name(), &DeleteParams::default()).await?;
        Ok(())
    }

    /// Deletes a Service. Succeeds if the Service does not exist.
    pub async fn delete_service_if_exists(&self, service: &ServiceBuilder) -> Result<(), Failure> {
        delete_if_exists(&self.services(), service.name(), &DeleteParams::default()).await
    }

    /// Returns the events about a Service.
    pub async fn list_events(&self, service: &ServiceBuilder) -> Result<Vec<Event>, Failure> {
        self.list_events_about(&self.get_service(service).await?).await
    }

    /// Returns the events about an object of any kind.
    pub async fn list_events_about(&self, object: &impl ResourceExt) -> Result<Vec<Event>, Failure> {
        let api = Api::<Event>::namespaced(self.client(), &object.namespace().unwrap_or_default());
        let events = api.list(&ListParams::default()).await?;
        let is_about_object =
            |event: &Event| event.regarding.as_ref().is_some_and(|regarding| regarding.uid == object.uid());
        Ok(events.items.into_iter().filter(is_about_object).collect())
    }

    fn services(&self) -> Api<Service> {
        Api::namespaced(self.client(), &self.name)
    }
}
