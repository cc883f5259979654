import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Prints records of a topic, one a line: key, value, then its headers, separated by tabs. */
public final class Reader {
    public static void main(String[] arguments) {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", arguments[0],
            "group.id", arguments[1],
            "isolation.level", "read_committed",
            "auto.offset.reset", "earliest",
            "enable.auto.commit", "false");
        int left = Integer.parseInt(arguments[3]);
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(arguments[2]));
            while (left > 0) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    var line = new StringBuilder(record.key() + "\t" + record.value());
                    for (Header header : record.headers()) {
                        var text = new String(header.value(), StandardCharsets.UTF_8);
                        line.append("\t").append(header.key()).append("=").append(text);
                    }
                    System.out.println(line);
                    left--;
                }
                consumer.commitSync();
            }
        }
    }
}
