//! Creates and deletes Services with their endpoints. Does I/O.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};

use crate::error::{Context, ScaleError};
use crate::objects::{self, Endpoints, NAMESPACE, service_name};

/// Creates and deletes Services.
#[derive(Clone)]
pub(crate) struct ServiceClient {
    services: Api<Service>,
    slices: Api<EndpointSlice>,
    node_count: usize,
}

impl ServiceClient {
    pub(crate) fn new(client: &Client, node_count: usize) -> Self {
        Self {
            services: Api::namespaced(client.clone(), NAMESPACE),
            slices: Api::namespaced(client.clone(), NAMESPACE),
            node_count,
        }
    }

    /// Creates a Service and its endpoints.
    pub(crate) async fn create(&self, index: usize) -> Result<(), ScaleError> {
        let slice = Endpoints::new(index, self.node_count).slice().map_err(kube::Error::SerdeError);
        let service = objects::service(index).map_err(kube::Error::SerdeError);
        let description = format!("creating {}", service_name(index));
        let parameters = PostParams::default();
        self.slices.create(&parameters, &slice.context(&description)?).await.context(&description)?;
        self.services
            .create(&parameters, &service.context(&description)?)
            .await
            .context(&description)
            .map(drop)
    }

    /// Deletes a Service and its endpoints.
    pub(crate) async fn delete(&self, index: usize) -> Result<(), ScaleError> {
        let (name, parameters) = (service_name(index), DeleteParams::default());
        self.services.delete(&name, &parameters).await.context(&format!("deleting {name}"))?;
        let slice = Endpoints::new(index, self.node_count).name();
        self.slices.delete(&slice, &parameters).await.context(&format!("deleting {slice}")).map(drop)
    }
}
