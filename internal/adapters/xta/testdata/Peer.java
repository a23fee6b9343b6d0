import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import de.xoev.transport.xta._211.*;
import eu.osci.ws._2008._05.transport.X509TokenContainerType;
import eu.osci.ws._2014._10.transport.MessageMetaData;
import eu.osci.ws._2014._10.transport.PartyType;
import jakarta.jws.WebService;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.xml.ws.BindingType;
import jakarta.xml.ws.Holder;
import java.io.InputStream;
import java.io.OutputStream;
import java.math.BigInteger;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.Base64;
import java.util.GregorianCalendar;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.TrustManagerFactory;
import javax.xml.datatype.DatatypeFactory;
import javax.xml.namespace.QName;
import org.apache.cxf.Bus;
import org.apache.cxf.BusFactory;
import org.apache.cxf.configuration.jsse.TLSServerParameters;
import org.apache.cxf.configuration.security.ClientAuthentication;
import org.apache.cxf.jaxws.EndpointImpl;
import org.apache.cxf.message.Message;
import org.apache.cxf.phase.AbstractPhaseInterceptor;
import org.apache.cxf.phase.Phase;
import org.apache.cxf.phase.PhaseInterceptorChain;
import org.apache.cxf.security.transport.TLSSessionInfo;
import org.apache.cxf.transport.http.AbstractHTTPDestination;
import org.apache.cxf.transport.http_jetty.JettyHTTPServerEngineFactory;
import org.apache.cxf.ws.addressing.AttributedURIType;
import org.apache.cxf.ws.addressing.WSAddressingFeature;
import org.apache.cxf.ws.policy.PolicyEngine;
import org.eclipse.jetty.server.Request;

/**
 * An XTA server for tests: what wsdl2java makes of XTA.wsdl, behind mutual TLS,
 * with schema validation. It keeps what it gets in directories, and does as a
 * plain control port on loopback says.
 *
 * Arguments: directory with ca.pem, cert.pem and key.pem; WSDL; TLS port. It says
 * "ready" and the control port.
 */
public final class Peer {
  static final Map<String, String> modes = new ConcurrentHashMap<>();
  static final Map<String, AtomicInteger> calls = new ConcurrentHashMap<>();
  static final Map<String, MessageMetaData> sent = new ConcurrentHashMap<>();
  static final Map<String, Boolean> made = new ConcurrentHashMap<>();
  static final AtomicInteger sequence = new AtomicInteger();
  static volatile Path received;
  static Path dir;

  static final String NS = "http://xoev.de/transport/xta/211";

  public static void main(String[] args) throws Exception {
    dir = Path.of(args[0]);
    int port = Integer.parseInt(args[2]);
    reset();
    Bus bus = BusFactory.getDefaultBus();
    // The policies ask for WS-Security capabilities that no message here uses;
    // their parts that matter (TLS with a client's certificate, addressing, MTOM)
    // are set by hand.
    PolicyEngine policies = bus.getExtension(PolicyEngine.class);
    if (policies != null) policies.setEnabled(false);
    bus.getExtension(JettyHTTPServerEngineFactory.class).setTLSServerParametersForPort("127.0.0.1", port, tls());
    publish(bus, new Management(), "ManagementPort", args[1], port);
    publish(bus, new Send(), "SendXtaPort", args[1], port);
    HttpServer control = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
    control.setExecutor(Executors.newCachedThreadPool());
    control.createContext("/", Peer::control);
    control.start();
    System.out.println("ready " + control.getAddress().getPort());
    System.out.flush();
  }

  static void publish(Bus bus, Object service, String name, String wsdl, int port) {
    EndpointImpl e = new EndpointImpl(bus, service);
    e.setWsdlLocation(wsdl);
    e.setServiceName(new QName(NS, "XTAService"));
    e.setEndpointName(new QName(NS, name));
    e.setProperties(Map.of("schema-validation-enabled", "true", "mtom-enabled", "true"));
    WSAddressingFeature addressing = new WSAddressingFeature();
    addressing.setAddressingRequired(true);
    e.getFeatures().add(addressing);
    e.getInInterceptors().add(new Gate(name));
    e.publish("https://127.0.0.1:" + port + "/" + name);
  }

  static TLSServerParameters tls() throws Exception {
    char[] none = new char[0];
    KeyStore own = KeyStore.getInstance("PKCS12");
    own.load(null, none);
    PrivateKey key = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(pem("key.pem")));
    own.setKeyEntry("peer", key, none, new Certificate[] {certificate("cert.pem")});
    KeyStore trusted = KeyStore.getInstance("PKCS12");
    trusted.load(null, none);
    trusted.setCertificateEntry("ca", certificate("ca.pem"));
    KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    keys.init(own, none);
    TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(trusted);
    TLSServerParameters p = new TLSServerParameters();
    p.setKeyManagers(keys.getKeyManagers());
    p.setTrustManagers(trust.getTrustManagers());
    ClientAuthentication client = new ClientAuthentication();
    client.setWant(true);
    client.setRequired(true);
    p.setClientAuthentication(client);
    return p;
  }

  static byte[] pem(String file) throws Exception {
    String s = Files.readString(dir.resolve(file)).replaceAll("-----[A-Z ]+-----", "").replaceAll("\\s", "");
    return Base64.getDecoder().decode(s);
  }

  static Certificate certificate(String file) throws Exception {
    try (InputStream in = Files.newInputStream(dir.resolve(file))) {
      return CertificateFactory.getInstance("X.509").generateCertificate(in);
    }
  }

  /** Control: /reset, /set?name=value, /calls. */
  static void control(HttpExchange x) {
    try (x) {
      StringBuilder out = new StringBuilder();
      switch (x.getRequestURI().getPath()) {
        case "/reset":
          reset();
          out.append(received);
          break;
        case "/set":
          String[] kv = x.getRequestURI().getQuery().split("=", 2);
          modes.put(kv[0], kv[1]);
          break;
        case "/calls":
          calls.forEach((k, v) -> out.append(k).append(' ').append(v.get()).append('\n'));
          break;
        default:
          x.sendResponseHeaders(404, -1);
          return;
      }
      byte[] b = out.toString().getBytes(StandardCharsets.UTF_8);
      x.sendResponseHeaders(200, b.length == 0 ? -1 : b.length);
      if (b.length > 0) x.getResponseBody().write(b);
    } catch (Exception e) {
      e.printStackTrace();
    }
  }

  static void reset() throws Exception {
    modes.clear();
    calls.clear();
    sent.clear();
    made.clear();
    received = Files.createDirectories(dir.resolve("received-" + sequence.incrementAndGet()));
  }

  static void count(String what) {
    calls.computeIfAbsent(what, k -> new AtomicInteger()).incrementAndGet();
  }

  static String mode(String what) {
    return modes.getOrDefault(what, "");
  }

  static void cut() {
    HttpServletRequest r = (HttpServletRequest) PhaseInterceptorChain.getCurrentMessage().get(AbstractHTTPDestination.HTTP_REQUEST);
    Request.getBaseRequest(r).getHttpChannel().getEndPoint().close();
  }

  /** Looks at the client's certificate, and cuts connections before the body is read. */
  static final class Gate extends AbstractPhaseInterceptor<Message> {
    final String port;

    Gate(String port) {
      super(Phase.RECEIVE);
      this.port = port;
    }

    @Override
    public void handleMessage(Message m) {
      count(port);
      if (mode(port).equals("cut")) {
        HttpServletRequest r = (HttpServletRequest) m.get(AbstractHTTPDestination.HTTP_REQUEST);
        Request.getBaseRequest(r).getHttpChannel().getEndPoint().close();
        throw new org.apache.cxf.interceptor.Fault(new java.io.IOException("cut"));
      }
    }
  }

  /** What the tests want of an operation; returns true where the answer is to be cut off. */
  static boolean act(String operation) throws PermissionDeniedException, XTAWSTechnicalProblemException {
    count(operation);
    String serial = mode("serial");
    X509Certificate c = (X509Certificate) PhaseInterceptorChain.getCurrentMessage().get(TLSSessionInfo.class).getPeerCertificates()[0];
    if (!serial.isEmpty() && !c.getSerialNumber().toString(16).equals(serial)) {
      count("refused certificate");
      PermissionDeniedExceptionType t = new PermissionDeniedExceptionType();
      t.setErrorCode(code("9014"));
      throw new PermissionDeniedException("no", t);
    }
    for (long end = System.nanoTime() + 60_000_000_000L; mode(operation).equals("slow") && System.nanoTime() < end; ) {
      try {
        Thread.sleep(20);
      } catch (InterruptedException e) {
        break;
      }
    }
    String m = mode(operation);
    if (m.startsWith("fault:")) fault(m.split(":")[1], m.split(":")[2]);
    return m.equals("cut");
  }

  static CodeFehlernummer code(String number) {
    CodeFehlernummer c = new CodeFehlernummer();
    c.setCode(number);
    c.setName("Kanarienvogel-7f3a");
    c.setListURI("urn:de:xta:webservice:codeliste:fehlernummer");
    c.setListVersionID("1.0");
    return c;
  }

  /** Throws a fault of the WSDL by its name. One that the operation does not declare comes out as an error of the server's. */
  static void fault(String name, String number) {
    try {
      Class<?> type = Class.forName("de.xoev.transport.xta._211." + name + "Type");
      Object info = type.getConstructor().newInstance();
      ((ExceptionType) info).setErrorCode(code(number));
      throw Peer.<RuntimeException>sneak((Throwable)
          Class.forName("de.xoev.transport.xta._211." + name).getConstructor(String.class, type).newInstance("Kanarienvogel-7f3a", info));
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException(e);
    }
  }

  @SuppressWarnings("unchecked")
  static <T extends Throwable> T sneak(Throwable t) throws T {
    throw (T) t;
  }

  @WebService(targetNamespace = NS, serviceName = "XTAService", portName = "ManagementPort", endpointInterface = "de.xoev.transport.xta._211.ManagementPortType")
  @BindingType("http://www.w3.org/2003/05/soap/bindings/HTTP/?mtom=true")
  public static final class Management implements ManagementPortType {
    @Override
    public AttributedURIType createMessageId(PartyType author) throws PermissionDeniedException, XTAWSTechnicalProblemException {
      boolean cut = act("createMessageId");
      AttributedURIType id = new AttributedURIType();
      id.setValue("urn:de:xta:messageid:peer:" + UUID.randomUUID());
      made.put(id.getValue(), true);
      if (cut) cut();
      return id;
    }

    @Override
    public TransportReport getTransportReport(AttributedURIType id, PartyType author)
        throws PermissionDeniedException, XTAWSTechnicalProblemException, InvalidMessageIDException {
      boolean cut = act("getTransportReport");
      MessageMetaData meta = sent.get(id.getValue());
      if (meta == null) {
        InvalidMessageIDExceptionType t = new InvalidMessageIDExceptionType();
        t.setErrorCode(code("9070"));
        throw new InvalidMessageIDException("unknown", t);
      }
      TransportReport r = new TransportReport();
      r.setMessageMetaData(meta);
      try {
        r.setReportTime(DatatypeFactory.newInstance().newXMLGregorianCalendar(new GregorianCalendar()));
      } catch (Exception e) {
        throw new IllegalStateException(e);
      }
      r.setXTAServerIdentity("peer");
      MessageStatusType s = new MessageStatusType();
      s.setStatus(new BigInteger(modes.getOrDefault("status", "1")));
      r.setMessageStatus(s);
      if (cut) cut();
      return r;
    }

    @Override
    public void checkAccountActive(PartyType author) {
      throw new UnsupportedOperationException();
    }

    @Override
    public LookupServiceResponse lookupService(LookupServiceRequest r, PartyType author) {
      throw new UnsupportedOperationException();
    }

    @Override
    public void cancelMessage(AttributedURIType id, PartyType author) {
      throw new UnsupportedOperationException();
    }
  }

  @WebService(targetNamespace = NS, serviceName = "XTAService", portName = "SendXtaPort", endpointInterface = "de.xoev.transport.xta._211.SendPortType")
  @BindingType("http://www.w3.org/2003/05/soap/bindings/HTTP/?mtom=true")
  public static final class Send implements SendPortType {
    @Override
    public void sendMessage(GenericContentContainer body, MessageMetaData meta, X509TokenContainerType tokens)
        throws PermissionDeniedException, XTAWSTechnicalProblemException, ParameterIsNotValidException {
      Path box = received; // of the test that called, even where it has ended
      boolean cut = act("sendMessage");
      String id = meta.getMsgIdentification().getMessageID().getValue();
      if (!made.containsKey(id)) refuse("9020");
      if (!mode("forgets").isEmpty()) return; // taken, and never known again
      if (sent.putIfAbsent(id, meta) != null) refuse("9024");
      try {
        keep(box, body.getContentContainer(), meta);
      } catch (Exception e) {
        throw new IllegalStateException(e);
      }
      if (cut) cut();
    }

    static void refuse(String number) throws ParameterIsNotValidException {
      ParameterIsNotValidExceptionType t = new ParameterIsNotValidExceptionType();
      t.setErrorCode(code(number));
      throw new ParameterIsNotValidException("no", t);
    }

    static void keep(Path box, GenericContentContainer.ContentContainer c, MessageMetaData meta) throws Exception {
      Path into = Files.createDirectory(box.resolve(".new-" + sequence.incrementAndGet()));
      Properties p = new Properties();
      p.setProperty("messageId", meta.getMsgIdentification().getMessageID().getValue());
      p.setProperty("case", meta.getMsgIdentification().getProcessRef().getRequester().getValue());
      p.setProperty("test", String.valueOf(meta.isTestMsg()));
      p.setProperty("author", meta.getOriginators().getAuthor().getIdentifier().getValue());
      p.setProperty("authorType", meta.getOriginators().getAuthor().getIdentifier().getType());
      p.setProperty("reader", meta.getDestinations().getReader().getIdentifier().getValue());
      p.setProperty("origin", String.valueOf(meta.getDeliveryAttributes().getOrigin()));
      p.setProperty("profile", String.valueOf(meta.getDeliveryAttributes().getServiceQuality()));
      p.setProperty("service", meta.getQualifier().getService());
      p.setProperty("scenario", meta.getQualifier().getBusinessScenario().getDefined() == null
          ? "undefined " + meta.getQualifier().getBusinessScenario().getUndefined()
          : meta.getQualifier().getBusinessScenario().getDefined().getCode());
      p.setProperty("type", meta.getQualifier().getMessageType().getCode());
      p.setProperty("typeList", meta.getQualifier().getMessageType().getListURI());
      p.setProperty("schema", meta.getQualifier().getMessageType().getPayloadSchema());
      p.setProperty("size", String.valueOf(meta.getMsgSize()));
      p.setProperty("action", String.valueOf(PhaseInterceptorChain.getCurrentMessage().get("SOAPAction")));
      p.setProperty("contentType", String.valueOf(PhaseInterceptorChain.getCurrentMessage().get(Message.CONTENT_TYPE)));
      write(into.resolve("message"), c.getMessage());
      p.setProperty("id", c.getMessage().getId());
      p.setProperty("messageContent", c.getMessage().getContentType() + " " + c.getMessage().getFilename() + " " + c.getMessage().getSize());
      List<String> names = new ArrayList<>();
      for (int i = 0; i < c.getAttachment().size(); i++) {
        ContentType a = c.getAttachment().get(i);
        write(into.resolve(String.format("attachment-%03d", i)), a);
        names.add(a.getContentType() + " " + a.getFilename() + " " + a.getId() + " " + a.getSize());
      }
      Files.write(into.resolve("attachments"), names);
      StringBuilder text = new StringBuilder();
      p.forEach((k, v) -> text.append(k).append('\t').append(v).append('\n'));
      Files.writeString(into.resolve("properties"), text);
      Files.move(into, box.resolve(into.getFileName().toString().substring(1)));
    }

    static void write(Path file, ContentType c) throws Exception {
      try (OutputStream out = Files.newOutputStream(file); InputStream in = c.getValue().getInputStream()) {
        in.transferTo(out);
      }
    }

    @Override
    public void sendMessageSync(Holder<GenericContentContainer> body, Holder<MessageMetaData> meta, Holder<X509TokenContainerType> tokens) {
      throw new UnsupportedOperationException();
    }
  }
}
