import io.cloudevents.CloudEvent;
import io.cloudevents.kafka.CloudEventDeserializer;
import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.FileInputStream;
import java.util.TreeSet;
import org.apache.kafka.common.header.internals.RecordHeaders;

/**
 * Reads the records in a file by CloudEvents' deserializer for Kafka, and prints a line for each:
 * id, source, type, subject, time, content type, bytes of data (-1: none), extensions.
 *
 * <p>The file: the number of records; of each the number of headers, name and value of each, and its value;
 * numbers are four bytes, bytes have their number before them, null is -1.
 */
public class Read {
  public static void main(String[] arguments) throws Exception {
    var file = new DataInputStream(new BufferedInputStream(new FileInputStream(arguments[0])));
    try (file;
        var deserializer = new CloudEventDeserializer()) {
      for (var records = file.readInt(); records > 0; records--) {
        var headers = new RecordHeaders();
        for (var count = file.readInt(); count > 0; count--) {
          headers.add(new String(bytes(file), "UTF-8"), bytes(file));
        }
        System.out.println(told(deserializer.deserialize("topic", headers, bytes(file))));
      }
    }
  }

  private static byte[] bytes(DataInputStream file) throws Exception {
    var length = file.readInt();
    return length < 0 ? null : file.readNBytes(length);
  }

  private static String told(CloudEvent event) {
    var data = event.getData();
    return String.join(
        "\t",
        event.getId(),
        String.valueOf(event.getSource()),
        event.getType(),
        String.valueOf(event.getSubject()),
        String.valueOf(event.getTime() == null ? null : event.getTime().toInstant().toEpochMilli()),
        String.valueOf(event.getDataContentType()),
        String.valueOf(data == null ? -1 : data.toBytes().length),
        String.join(",", new TreeSet<>(event.getExtensionNames())));
  }
}
