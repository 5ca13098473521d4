//! The namespace of a target, made where the catalog asks for it.

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use slipway_model::{Fault, Name, Reason};

use crate::{
    Kubernetes,
    apply::{FIELD_MANAGER, bounded},
    call,
    fault::{fault_of, unavailable},
};

/// Creates it unless it exists.
///
/// # Errors
/// When the API server cannot be asked or refuses.
pub async fn create(cluster: &Kubernetes, name: &Name) -> Result<(), Fault<Reason>> {
    let api: Api<Namespace> = Api::all(cluster.client().clone());
    // Looking is allowed to more callers than creating.
    if call(&format!("read namespace {name}"), api.get_opt(name.as_str()))
        .await?
        .is_some()
    {
        return Ok(());
    }
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(name.to_string()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let what = format!("create namespace {name}");
    match bounded(api.create(&parameters, &namespace)).await {
        Ok(Ok(_)) => Ok(()),
        // Another client was faster.
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(()),
        Ok(Err(error)) => Err(fault_of(&what, &error)),
        Err(words) => Err(unavailable(format!("{what}: {words}"))),
    }
}
