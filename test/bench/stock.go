package main

import (
	"context"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"

	"weiche/internal/app"
	"weiche/internal/config"
	"weiche/internal/submission"
)

// watermillStock does what the pipeline's dispatch does (decide, map, check)
// with watermill-kafka as it comes. Its defaults wait for acks=1, have no record
// key and no idempotence; one thing is set, because it has to read a topic that
// is full: a group without offset begins at the oldest record.
func watermillStock(ctx context.Context, j job, ready func(addresses)) error {
	cfg, problems := config.Load(j.Config, []string{"WEICHE_DATA=" + j.Data})
	if cfg == nil {
		return problems
	}
	lib, _ := app.LoadLibrary(cfg)
	m := mapper{lib}
	sub := kafka.DefaultSaramaSubscriberConfig()
	sub.Consumer.Offsets.Initial = sarama.OffsetOldest
	subscriber, err := kafka.NewSubscriber(kafka.SubscriberConfig{Brokers: j.Brokers, ConsumerGroup: j.Group,
		Unmarshaler: kafka.DefaultMarshaler{}, OverwriteSaramaConfig: sub}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	publisher, err := kafka.NewPublisher(kafka.PublisherConfig{Brokers: j.Brokers, Marshaler: kafka.DefaultMarshaler{}}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	defer publisher.Close()
	r, err := message.NewRouter(message.RouterConfig{CloseTimeout: 10 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	r.AddConsumerHandler("map", j.In, subscriber, func(msg *message.Message) error {
		to, xml, err := m.message(msg.Payload)
		if err != nil {
			return err
		}
		topic, err := topicOf(to)
		if err != nil {
			return err
		}
		out := message.NewMessage(watermill.NewUUID(), xml)
		out.Metadata.Set(idHeader, msg.Metadata.Get(idHeader))
		return publisher.Publish(topic, out)
	})
	ready(addresses{})
	return r.Run(ctx)
}

// topicOf returns the topic of a destination of the standard plan, which has one
// for each Land.
func topicOf(destination string) (string, error) {
	for i, l := range lands {
		if destination == submission.DestinationName(submission.Land(l.key), "fv-0") {
			return outTopic(i), nil
		}
	}
	return "", fmt.Errorf("destination %s has no topic", destination)
}
