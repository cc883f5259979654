import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.util.HexFormat;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The tally in Kafka Streams: decode, count per key in RocksDB with its changelog (record cache on), emit
 * the event with its count, exactly_once_v2. Everything that is not said here is at its default.
 *
 * <p>Arguments: bootstrap servers, topic, topic to write to, records, application id, state folder, threads.
 */
public final class Tally {
    record Event(String eventId, String type, String accountId, String occurredAt, Map<String, Object> payload) {}

    record Counted(
            String eventId,
            String type,
            String accountId,
            String occurredAt,
            Map<String, Object> payload,
            long count) {}

    static final AtomicLong PROCESSED = new AtomicLong();

    static final class Counting implements Processor<String, byte[], String, byte[]> {
        private static final byte[] SPECVERSION = ascii("1.0");
        private static final byte[] TYPE = ascii("bench.counted.v1");
        private static final byte[] SOURCE = ascii("/bench/tally");
        private static final byte[] CONTENT_TYPE = ascii("application/json");

        private final MessageDigest digest = digest();
        private final ObjectMapper mapper = new ObjectMapper();
        private final ObjectReader reader = mapper.readerFor(Event.class);
        private final ObjectWriter writer = mapper.writerFor(Counted.class);
        private ProcessorContext<String, byte[]> context;
        private KeyValueStore<String, Long> counts;

        @Override
        public void init(ProcessorContext<String, byte[]> given) {
            context = given;
            counts = given.getStateStore("counts");
        }

        @Override
        public void process(Record<String, byte[]> record) {
            try {
                Event event = reader.readValue(record.value());
                Long before = counts.get(record.key());
                long count = before == null ? 1 : before + 1;
                counts.put(record.key(), count);
                Counted counted =
                        new Counted(
                                event.eventId(),
                                event.type(),
                                event.accountId(),
                                event.occurredAt(),
                                event.payload(),
                                count);
                context.forward(
                        record.withValue(writer.writeValueAsBytes(counted))
                                .withHeaders(headers(event, record.key())));
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            PROCESSED.incrementAndGet();
        }

        /** CloudEvents attributes and trace, whose ids follow from where the event stood. */
        private Headers headers(Event event, String key) {
            RecordMetadata at = context.recordMetadata().orElseThrow();
            String place = at.topic() + "/" + at.partition() + "/" + at.offset();
            String trace = sha256(place);
            return new RecordHeaders()
                    .add("ce_specversion", SPECVERSION)
                    .add("ce_type", TYPE)
                    .add("ce_source", SOURCE)
                    .add("content-type", CONTENT_TYPE)
                    .add("ce_id", ascii(sha256("tally|" + place)))
                    .add("ce_time", ascii(event.occurredAt()))
                    .add("ce_subject", ascii(key))
                    .add("traceparent", ascii("00-" + trace.substring(0, 32) + "-" + trace.substring(32, 48) + "-01"));
        }

        private String sha256(String text) {
            return HexFormat.of().formatHex(digest.digest(ascii(text)));
        }

        private static byte[] ascii(String text) {
            return text.getBytes(StandardCharsets.ISO_8859_1);
        }

        private static MessageDigest digest() {
            try {
                return MessageDigest.getInstance("SHA-256");
            } catch (NoSuchAlgorithmException error) {
                throw new IllegalStateException(error);
            }
        }
    }

    static Topology topology(String source, String target) {
        var store =
                Stores.keyValueStoreBuilder(
                                Stores.persistentKeyValueStore("counts"), Serdes.String(), Serdes.Long())
                        .withCachingEnabled();
        return new Topology()
                .addSource("source", new StringDeserializer(), new ByteArrayDeserializer(), source)
                .addProcessor("tally", Counting::new, "source")
                .addStateStore(store, "tally")
                .addSink("target", target, new StringSerializer(), new ByteArraySerializer(), "tally");
    }

    public static void main(String[] args) throws InterruptedException {
        long records = Long.parseLong(args[3]);
        var settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[4]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, args[5]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, args[6]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        var streams = new KafkaStreams(topology(args[1], args[2]), settings);
        streams.start();
        while (PROCESSED.get() < records && !streams.state().hasCompletedShutdown()) {
            Thread.sleep(20);
        }
        boolean closed = streams.close(Duration.ofSeconds(60)); // commits what is processed
        System.exit(closed && PROCESSED.get() >= records ? 0 : 1);
    }
}
