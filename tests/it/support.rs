//! What the tests stand on: real servers, the real binary, an independent S3 client, and the faults
//! between them.

pub(crate) mod browser;
pub(crate) mod collector;
pub(crate) mod compare;
pub(crate) mod elasticmq;
pub(crate) mod events;
pub(crate) mod eventually;
pub(crate) mod evermirror;
pub(crate) mod fault_proxy;
pub(crate) mod hostile;
pub(crate) mod http;
pub(crate) mod kafka;
pub(crate) mod mc;
pub(crate) mod minio;
pub(crate) mod moto;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod rustfs;
pub(crate) mod s3;
pub(crate) mod server;
pub(crate) mod site;
pub(crate) mod sqs;
pub(crate) mod tiny_disk;
pub(crate) mod tls;
pub(crate) mod toxiproxy;
pub(crate) mod writer;
