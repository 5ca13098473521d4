//! Any RPC by its name, with requests and answers as JSON: what to call, and what its requests contain, is read from
//! the descriptor set.

use std::{sync::LazyLock, time::Duration};

use bytes::BufMut;
use futures::{StreamExt, stream};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde_json::Value;
use slipway_server::ErrorView;
use slipway_tests::{Suite, clients::token};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(slipway_proto::DESCRIPTORS).unwrap());

/// Every RPC of Slipway's APIs.
pub(crate) fn methods() -> Vec<MethodDescriptor> {
    let services = POOL
        .services()
        .filter(|service| service.full_name().starts_with("slipway."));
    services
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect()
}

/// `Service/Method`.
pub(crate) fn name(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().name(), method.name())
}

/// The RPC of this name.
pub(crate) fn method(wanted: &str) -> MethodDescriptor {
    let found = methods().into_iter().find(|method| name(method) == wanted);
    found.unwrap_or_else(|| panic!("there is no RPC {wanted}"))
}

/// The index, in a suite's addresses, of the program that serves an API.
fn program(method: &MethodDescriptor) -> usize {
    match method.parent_service().full_name() {
        "slipway.build.v1.BuildService" => 0,
        "slipway.gitops.v1.GitOpsService" => 1,
        "slipway.approval.v1.ApprovalService" => 2,
        "slipway.deploy.v1.DeployService" | "slipway.release.v1.ReleaseService" => 3,
        // The same in all four.
        "slipway.operations.v1.OperationsService" => 0,
        other => panic!("say here which program serves {other}"),
    }
}

/// When a request must be answered, and when it is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    /// As the `grpc-timeout` header writes it.
    pub(crate) header: &'static str,
    /// The headers come at once, the request itself after this time.
    pub(crate) sent_after: Duration,
}

/// Calls the programs of a suite. Its connections belong to the runtime of the test that created it.
pub(crate) struct Api {
    client: Client<HttpConnector, tonic::body::Body>,
    urls: [String; 4],
}

impl Api {
    pub(crate) fn new(suite: &Suite) -> Self {
        // Not tonic's channel, which enforces `grpc-timeout` itself: the server should do that.
        Self {
            client: Client::builder(TokioExecutor::new())
                .http2_only(true)
                .build_http(),
            urls: suite.addresses(0).urls.clone(),
        }
    }

    /// Sends a request as bytes. A unary answer is a stream of one message.
    pub(crate) async fn open(
        &self,
        method: &MethodDescriptor,
        token: Option<&str>,
        bytes: Vec<u8>,
        deadline: Option<Deadline>,
    ) -> Result<Answers, Status> {
        let origin = self.urls[program(method)].parse().unwrap();
        let mut grpc = Grpc::with_origin(self.client.clone(), origin);
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let body = stream::once(async move {
            if let Some(deadline) = deadline {
                tokio::time::sleep(deadline.sent_after).await;
            }
            bytes
        });
        let mut request = Request::new(body);
        let metadata = request.metadata_mut();
        if let Some(token) = token {
            metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        if let Some(deadline) = deadline {
            metadata.insert("grpc-timeout", deadline.header.parse().unwrap());
        }
        grpc.ready().await.unwrap();
        let answer = grpc.streaming(request, path.parse().unwrap(), Dynamic(method.output()));
        Ok(Answers(answer.await?.into_inner()))
    }

    /// A person's stream.
    pub(crate) async fn stream(
        &self,
        person: &str,
        name: &str,
        request: &Value,
    ) -> Result<Answers, ErrorView> {
        let method = method(name);
        let bytes = encode(&method.input(), request);
        let opened = self.open(&method, Some(&token(person)), bytes, None).await;
        opened.map_err(|status| ErrorView::of(&status))
    }

    /// A person's call with one answer.
    pub(crate) async fn call(&self, person: &str, name: &str, request: &Value) -> Result<Value, ErrorView> {
        let mut answers = self.stream(person, name, request).await?;
        let answer = answers.next().await;
        answer.unwrap_or_else(|| panic!("{name} answered with nothing"))
    }

    /// As [`call`](Self::call), but only success is expected.
    pub(crate) async fn ok(&self, person: &str, name: &str, request: &Value) -> Value {
        let answer = self.call(person, name, request).await;
        answer.unwrap_or_else(|error| panic!("{name} {request}: {error:?}"))
    }
}

/// The messages of an answer.
pub(crate) struct Answers(Streaming<DynamicMessage>);

impl Answers {
    /// The next message; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Value, ErrorView>> {
        let next = self.0.next().await?;
        Some(
            next.map(|message| json(&message))
                .map_err(|status| ErrorView::of(&status)),
        )
    }

    /// All remaining ones; the stream must end by itself and successfully.
    pub(crate) async fn rest(&mut self) -> Vec<Value> {
        let mut rest = Vec::new();
        while let Some(next) = self.next().await {
            rest.push(next.unwrap());
        }
        rest
    }
}

/// A request from JSON, whose field names are those of the `.proto` files.
pub(crate) fn encode(message: &MessageDescriptor, request: &Value) -> Vec<u8> {
    let read = DynamicMessage::deserialize(message.clone(), request);
    let read = read.unwrap_or_else(|error| panic!("{}: {request}: {error}", message.full_name()));
    read.encode_to_vec()
}

fn json(message: &DynamicMessage) -> Value {
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false);
    let written = message.serialize_with_options(serde_json::value::Serializer, &options);
    written.unwrap()
}

/// Encoded requests, and answers of a type that is only known at run time.
struct Dynamic(MessageDescriptor);

impl Codec for Dynamic {
    type Encode = Vec<u8>;
    type Decode = DynamicMessage;
    type Encoder = Bytes;
    type Decoder = Self;

    fn encoder(&mut self) -> Bytes {
        Bytes
    }

    fn decoder(&mut self) -> Self {
        Self(self.0.clone())
    }
}

struct Bytes;

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.0.clone(), buffer);
        message
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
