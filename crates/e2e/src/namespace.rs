//! A test's own namespace, and the Services in it. Does I/O.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};

use crate::cluster::Cluster;
use crate::throttle::delete;
use crate::{Failure, ServiceBuilder, eventually, ports};

/// A namespace that was made for one test.
pub struct Namespace {
    run: Arc<Run>,
    name: String,
}

/// What all namespaces of a test have in common.
pub(crate) struct Run {
    pub(crate) cluster: Cluster,
    namespaces: Mutex<Vec<String>>,
}

impl Run {
    pub(crate) fn new(cluster: Cluster) -> Arc<Self> {
        Arc::new(Self { cluster, namespaces: Mutex::default() })
    }

    /// Makes a namespace, to be removed with the others.
    pub(crate) async fn namespace(self: &Arc<Self>, name: String) -> Result<Namespace, Failure> {
        let object = KubeNamespace {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            ..KubeNamespace::default()
        };
        let api = Api::<KubeNamespace>::all(self.cluster.client.clone());
        api.create(&PostParams::default(), &object).await?;
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        Ok(Namespace { run: self.clone(), name })
    }

    pub(crate) fn namespaces(&self) -> Vec<String> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Namespace {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that it is in.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.run.cluster
    }

    /// The connection to the API server.
    pub(crate) fn client(&self) -> Client {
        self.run.cluster.client.clone()
    }

    /// A further namespace for the same test, whose name begins like this one's.
    pub async fn another(&self, ending: &str) -> Result<Self, Failure> {
        self.run.namespace(format!("{}-{ending}", self.name)).await
    }

    /// Ports that nobody else uses.
    pub async fn ports<const N: usize>(&self) -> Result<[u16; N], Failure> {
        ports::free(&self.run.cluster.client).await
    }

    /// Makes a Service, or changes it: what is no longer said is taken away.
    pub async fn apply(&self, service: &ServiceBuilder) -> Result<Service, Failure> {
        let params = PatchParams::apply("e2e").force();
        Ok(self.services().patch(service.name(), &params, &Patch::Apply(service.build())).await?)
    }

    /// Makes a Service that is younger than another: creation times are whole seconds, and of two Services of the same
    /// second the UID decides.
    pub async fn apply_after(&self, older: &ServiceBuilder, younger: &ServiceBuilder) -> Result<(), Failure> {
        let created = self.service(older).await?.metadata.creation_timestamp;
        eventually("a Service is made in another second", async || {
            if self.apply(younger).await?.metadata.creation_timestamp != created {
                return Ok(());
            }
            self.delete(younger).await?;
            Err(Failure::Unmet("it was the same second".to_owned()))
        })
        .await
    }

    /// A Service as it is now.
    pub async fn service(&self, service: &ServiceBuilder) -> Result<Service, Failure> {
        Ok(self.services().get(service.name()).await?)
    }

    /// Deletes a Service.
    pub async fn delete(&self, service: &ServiceBuilder) -> Result<(), Failure> {
        self.services().delete(service.name(), &DeleteParams::default()).await?;
        Ok(())
    }

    /// Deletes a Service that may be gone already.
    pub async fn delete_if_there(&self, service: &ServiceBuilder) -> Result<(), Failure> {
        delete(&self.services(), service.name()).await
    }

    /// The events about a Service.
    pub async fn events(&self, service: &ServiceBuilder) -> Result<Vec<Event>, Failure> {
        self.events_about(&self.service(service).await?).await
    }

    /// The events about any object.
    pub async fn events_about(&self, object: &impl ResourceExt) -> Result<Vec<Event>, Failure> {
        let api = Api::<Event>::namespaced(self.client(), &object.namespace().unwrap_or_default());
        let events = api.list(&ListParams::default()).await?;
        let is_about =
            |event: &Event| event.regarding.as_ref().is_some_and(|about| about.uid == object.uid());
        Ok(events.items.into_iter().filter(is_about).collect())
    }

    fn services(&self) -> Api<Service> {
        Api::namespaced(self.client(), &self.name)
    }
}
