/* The other end: libsrtp, driven line by line.
 *
 * peer SUITE KEY-AND-SALT-IN-HEX [IDENTIFIER-IN-HEX], then on standard input
 *     protect|unprotect rtp|rtcp PACKET-IN-HEX
 * and on standard output the packet in hex, or "error" with libsrtp's number. */
#include <srtp2/srtp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int from_hex(const char *text, unsigned char *out, int room) {
    int length = 0;
    unsigned byte;
    while (length < room && sscanf(text + 2 * length, "%2x", &byte) == 1) out[length++] = byte;
    return length;
}

static srtp_t session(const char *suite, unsigned char *key, unsigned char *identifier, int identifier_length,
                      srtp_ssrc_type_t direction) {
    srtp_policy_t policy;
    srtp_t made;
    srtp_master_key_t with = {key, identifier, identifier_length};
    srtp_master_key_t *keys[] = {&with};
    memset(&policy, 0, sizeof policy);
    if (!strcmp(suite, "AES_CM_128_HMAC_SHA1_80") || !strcmp(suite, "AES_CM_128_HMAC_SHA1_32")) {
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy.rtcp);
        if (strstr(suite, "_80")) srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy.rtp);
        else srtp_crypto_policy_set_aes_cm_128_hmac_sha1_32(&policy.rtp);
    } else if (!strcmp(suite, "AES_256_CM_HMAC_SHA1_80") || !strcmp(suite, "AES_256_CM_HMAC_SHA1_32")) {
        srtp_crypto_policy_set_aes_cm_256_hmac_sha1_80(&policy.rtcp);
        if (strstr(suite, "_80")) srtp_crypto_policy_set_aes_cm_256_hmac_sha1_80(&policy.rtp);
        else srtp_crypto_policy_set_aes_cm_256_hmac_sha1_32(&policy.rtp);
    } else if (!strcmp(suite, "AEAD_AES_128_GCM")) {
        srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy.rtp);
        srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy.rtcp);
    } else if (!strcmp(suite, "AEAD_AES_256_GCM")) {
        srtp_crypto_policy_set_aes_gcm_256_16_auth(&policy.rtp);
        srtp_crypto_policy_set_aes_gcm_256_16_auth(&policy.rtcp);
    } else {
        exit(3);
    }
    policy.ssrc.type = direction;
    policy.window_size = 128;
    if (identifier_length > 0) {
        policy.keys = keys;
        policy.num_master_keys = 1;
    } else {
        policy.key = key;
    }
    if (srtp_create(&made, &policy) != srtp_err_status_ok) exit(4);
    return made;
}

int main(int count, char **arguments) {
    static char line[8192], way[16], what[16], hex[8000];
    static unsigned char packet[8192];
    unsigned char key[64] = {0}, identifier[128];
    int identifier_length = 0;
    if (count < 3 || srtp_init() != srtp_err_status_ok) return 2;
    from_hex(arguments[2], key, sizeof key);
    if (count > 3) identifier_length = from_hex(arguments[3], identifier, sizeof identifier);
    srtp_t out = session(arguments[1], key, identifier, identifier_length, ssrc_any_outbound);
    srtp_t in = session(arguments[1], key, identifier, identifier_length, ssrc_any_inbound);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%15s %15s %7999s", way, what, hex) != 3) return 5;
        int length = from_hex(hex, packet, 4000), named = identifier_length > 0;
        int rtp = !strcmp(what, "rtp");
        srtp_err_status_t status =
            !strcmp(way, "protect")
                ? (rtp ? srtp_protect_mki(out, packet, &length, named, 0)
                       : srtp_protect_rtcp_mki(out, packet, &length, named, 0))
                : (rtp ? srtp_unprotect_mki(in, packet, &length, named)
                       : srtp_unprotect_rtcp_mki(in, packet, &length, named));
        if (status != srtp_err_status_ok) printf("error %d", status);
        else for (int i = 0; i < length; i++) printf("%02x", packet[i]);
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
