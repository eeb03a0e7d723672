// TLS for outbound connections, by OpenSSL with the system's trust store. The Consul client owns one for https.
import CEvent

/// Settings of TLS connections, shared by all that are made with them.
final class TLSContext {
    private let context: OpaquePointer

    /// Trusts what the system trusts; OpenSSL's SSL_CERT_FILE and SSL_CERT_DIR say otherwise.
    init() {
        guard let context = SSL_CTX_new(TLS_client_method()) else { preconditionFailure("OpenSSL does not start") }
        self.context = context
        SSL_CTX_set_default_verify_paths(context)
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
    }

    deinit {
        SSL_CTX_free(context)
    }

    /// A bufferevent that will speak TLS with the host, and only with the host: its certificate is verified.
    func makeBufferevent(loop: EventLoop, host: String) -> OpaquePointer? {
        guard let ssl = SSL_new(context) else { return nil }
        if X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) != 1 {
            // Not a literal: the name is verified, and sent in the handshake.
            SSL_set1_host(ssl, host)
            shardd_set_server_name(ssl, host)
        }
        let options = BEV_OPT_CLOSE_ON_FREE.rawValue | BEV_OPT_DEFER_CALLBACKS.rawValue
        return bufferevent_openssl_socket_new(loop.base, -1, ssl, BUFFEREVENT_SSL_CONNECTING, Int32(options))
    }

    /// Why a connection failed, in OpenSSL's words; nil when TLS is not to blame.
    static func failure(of bufferevent: OpaquePointer) -> String? {
        if let ssl = bufferevent_openssl_get_ssl(bufferevent) {
            let result = SSL_get_verify_result(ssl)
            if result != X509_V_OK {
                return "its certificate is not trusted: \(String(cString: X509_verify_cert_error_string(result)))"
            }
        }
        let code = bufferevent_get_openssl_error(bufferevent)
        guard code != 0, let reason = ERR_reason_error_string(code) else { return nil }
        return "TLS: \(String(cString: reason))"
    }
}
