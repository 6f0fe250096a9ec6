//! The intakes that the configuration asks for, built.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::stages::Stages;
use crate::config::settings::{IntakeSettings, WebhookSettings};
use crate::intake::kafka::{self, KafkaIntake, Outbox};
use crate::intake::listen::ListenIntake;
use crate::intake::sqs::SqsIntake;
use crate::intake::webhook::{Webhook, WebhookIntake};
use crate::intake::{Inlet, Intake, tls};
use crate::serve::{self, BearerToken};
use crate::store::Store;

/// The ports that intakes need, taken before anything else is done: a port in use is the most
/// frequent mistake, and nothing should have happened then.
pub(super) struct Listeners {
    webhook: Option<TcpListener>,
}

impl Listeners {
    pub(super) async fn bind(settings: &IntakeSettings) -> anyhow::Result<Self> {
        let webhook = match &settings.webhook {
            Some(webhook) => Some(serve::bind(webhook.listen, "intake.webhook.listen").await?),
            None => None,
        };
        Ok(Self { webhook })
    }

    pub(super) fn webhook_address(&self) -> std::io::Result<Option<SocketAddr>> {
        self.webhook.as_ref().map(TcpListener::local_addr).transpose()
    }
}

/// What takes notifications, built.
pub(super) struct Opened {
    pub(super) intakes: Vec<Box<dyn Intake>>,
    /// What takes the feeder's place where Kafka is the journal.
    pub(super) outbox: Option<Outbox>,
}

/// Every intake whose table is present, in the order of the configuration's documentation.
pub(super) async fn open(
    listeners: Listeners,
    stages: &Stages,
    source: &Store,
    inlet: &Arc<Inlet>,
) -> anyhow::Result<Opened> {
    let settings = &stages.settings.intake;
    let mut intakes: Vec<Box<dyn Intake>> = Vec::new();
    if let (Some(listener), Some(settings)) = (listeners.webhook, &settings.webhook) {
        intakes.push(Box::new(webhook(listener, settings, stages, inlet)?));
    }
    if let Some(settings) = &settings.sqs {
        let sqs = SqsIntake::connect(settings, Arc::clone(inlet), stages.metrics.clone()).await;
        let refused = |error| {
            anyhow::anyhow!("the client of the queue cannot be built from [intake.sqs]: {error}")
        };
        intakes.push(Box::new(sqs.map_err(refused)?));
    }
    let mut outbox = None;
    if let Some(settings) = &settings.kafka {
        let parts = kafka::Parts {
            inlet: Arc::clone(inlet),
            queue: Arc::clone(&stages.queue),
            leads: stages.leads.clone(),
            lag: Arc::clone(&stages.kafka),
        };
        let (kafka, sends) = KafkaIntake::open(settings, parts)?;
        outbox = sends;
        intakes.push(Box::new(kafka));
    }
    if let Some(listen) = &settings.listen {
        intakes.push(Box::new(ListenIntake::new(
            source.clone(),
            stages.settings.buckets.iter().map(|bucket| bucket.source.clone()).collect(),
            listen.max_silence,
            Arc::clone(inlet),
            stages.metrics.clone(),
        )));
    }
    Ok(Opened { intakes, outbox })
}

fn webhook(
    listener: TcpListener,
    settings: &WebhookSettings,
    stages: &Stages,
    inlet: &Arc<Inlet>,
) -> anyhow::Result<WebhookIntake> {
    let tls = settings.tls.as_ref().map(tls::acceptor).transpose()?;
    let webhook = Webhook {
        path: settings.path.clone(),
        token: settings.auth_token.as_ref().map(BearerToken::new),
        max_body: usize::try_from(settings.max_body.0).unwrap_or(usize::MAX),
        inlet: Arc::clone(inlet),
        metrics: stages.metrics.clone(),
    };
    Ok(WebhookIntake::new(listener, tls, webhook, settings.max_connections)?)
}
