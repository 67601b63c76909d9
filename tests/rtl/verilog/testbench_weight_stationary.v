// Runs a weight-stationary array through the cases that cases.txt lists; files in and out as the other testbench has them,
// with the partial sum in place of the accumulator. A line of registers ends with two numbers per column: the accumulator
// below it that the sum of this cycle was added to, and whether it overflowed, 0 0 where no sum left the column; an output's
// line ends with the partial sum's events.

module testbench;
    parameter ROWS = 4;
    parameter COLUMNS = 4;
    parameter WEIGHT_BITS = 9;
    parameter ACTIVATION_BITS = 9;
    parameter PARTIAL_BITS = 32;
    parameter ACC_BITS = 32;
    parameter SATURATE = 0;
    parameter LATENCY = 1;
    parameter SHIFT = 0;
    parameter RULE = 0;
    localparam START_BITS = 64;
    localparam WORDS = 4096;
    localparam DEPTH = 256;

    reg clock = 0, load = 0, first = 0;
    reg [31:0] last_row = 0;
    reg [COLUMNS-1:0] valid = 0;
    reg [COLUMNS*32-1:0] addresses = 0;
    reg [COLUMNS*START_BITS-1:0] starts = 0;
    reg [COLUMNS*WEIGHT_BITS-1:0] weights_in = 0;
    reg [ROWS*ACTIVATION_BITS-1:0] activations_in = 0;
    wire [ROWS*COLUMNS*WEIGHT_BITS-1:0] weights;
    wire [ROWS*COLUMNS*ACTIVATION_BITS-1:0] activations;
    wire [ROWS*COLUMNS*PARTIAL_BITS-1:0] sums;
    wire [ROWS*COLUMNS-1:0] overflows;
    wire [COLUMNS*ACC_BITS-1:0] words;
    wire [COLUMNS*2-1:0] word_overflows;

    weight_stationary_array #(
        .ROWS(ROWS), .COLUMNS(COLUMNS), .WEIGHT_BITS(WEIGHT_BITS), .ACTIVATION_BITS(ACTIVATION_BITS),
        .PARTIAL_BITS(PARTIAL_BITS), .ACC_BITS(ACC_BITS), .START_BITS(START_BITS), .DEPTH(DEPTH), .SATURATE(SATURATE),
        .LATENCY(LATENCY), .SHIFT(SHIFT), .RULE(RULE)
    ) array (
        .clock(clock), .load(load), .last_row(last_row), .valid(valid), .first(first), .addresses(addresses),
        .starts(starts), .weights_in(weights_in), .activations_in(activations_in), .weights(weights),
        .activations(activations), .sums(sums), .overflows(overflows), .words(words), .word_overflows(word_overflows)
    );

    reg [63:0] weight_file [0:WORDS-1], activation_file [0:WORDS-1], start_file [0:WORDS-1];
    integer events [0:WORDS-1], partial_events [0:WORDS-1];
    reg [8*64-1:0] folder;
    reg [8*96-1:0] name;
    integer cases, registers, outputs, found, N, K, P, full;
    integer weight_bits, weight_signed, activation_bits, activation_signed, start_bits;
    integer n0, k0, used_rows, used_columns, rows, columns, t, i, j, n, p, fold;
    integer load_cycles, multiply_cycles;
    reg signed [ACC_BITS-1:0] finished [0:WORDS-1];

    // The value of a word of a file: two's complement of some bits, or unsigned.
    function signed [63:0] value_of(input [63:0] word, input integer bits, input integer is_signed);
        if (is_signed != 0) value_of = $signed(word << (64 - bits)) >>> (64 - bits);
        else value_of = word;
    endfunction

    task tick;
        begin
            #1 clock = 1;
            #1 clock = 0;
        end
    endtask

    task run_fold;
        begin
            // Load: the weights of the last row enter first and move down.
            for (t = 0; t < rows; t = t + 1) begin
                weights_in = 0;
                i = rows - 1 - t;
                for (j = 0; j < used_columns; j = j + 1)
                    if (i < used_rows)
                        weights_in[j*WEIGHT_BITS +: WEIGHT_BITS] =
                            value_of(weight_file[(n0+j)*K+k0+i], weight_bits, weight_signed);
                load = 1;
                tick;
                load = 0;
                load_cycles = load_cycles + 1;
            end
            last_row = rows - 1;
            first = k0 == 0;
            starts = 0;
            for (j = 0; j < used_columns; j = j + 1)
                starts[j*START_BITS +: START_BITS] = value_of(start_file[n0+j], start_bits, 1);
            for (t = 0; t < P + rows + columns - 2 + LATENCY - 1; t = t + 1) begin
                activations_in = 0;
                for (i = 0; i < used_rows; i = i + 1)
                    if (t - i >= 0 && t - i < P)
                        activations_in[i*ACTIVATION_BITS +: ACTIVATION_BITS] =
                            value_of(activation_file[(k0+i)*P+t-i], activation_bits, activation_signed);
                valid = 0;
                addresses = 0;
                for (j = 0; j < used_columns; j = j + 1) begin
                    p = t - (LATENCY - 1) - (rows - 1) - j;
                    if (p >= 0 && p < P) begin
                        valid[j] = 1;
                        addresses[j*32 +: 32] = p;
                    end
                end
                tick;
                multiply_cycles = multiply_cycles + 1;
                for (j = 0; j < used_columns; j = j + 1) begin
                    p = t - (LATENCY - 1) - (rows - 1) - j;
                    if (valid[j]) events[(n0+j)*P+p] = events[(n0+j)*P+p] + word_overflows[j*2] + word_overflows[j*2+1];
                    for (i = 0; i < rows; i = i + 1) begin
                        p = t - (LATENCY - 1) - i - j;
                        if (overflows[i*COLUMNS+j]) partial_events[(n0+j)*P+p] = partial_events[(n0+j)*P+p] + 1;
                    end
                end
                $fwrite(registers, "%0d", fold);
                for (i = 0; i < ROWS*COLUMNS; i = i + 1)
                    $fwrite(
                        registers, " %0d %0d %0d %0d", $signed(sums[i*PARTIAL_BITS +: PARTIAL_BITS]),
                        $signed(weights[i*WEIGHT_BITS +: WEIGHT_BITS]),
                        $signed(activations[i*ACTIVATION_BITS +: ACTIVATION_BITS]), overflows[i]
                    );
                for (j = 0; j < COLUMNS; j = j + 1)
                    if (valid[j])
                        $fwrite(registers, " %0d %0d", $signed(words[j*ACC_BITS +: ACC_BITS]), word_overflows[j*2]);
                    else $fwrite(registers, " 0 0");
                $fwrite(registers, "\n");
            end
            valid = 0;
            fold = fold + 1;
        end
    endtask

    task run_case;
        begin
            $sformat(name, "%0s/weights.hex", folder);
            $readmemh(name, weight_file, 0, N*K-1);
            $sformat(name, "%0s/activations.hex", folder);
            $readmemh(name, activation_file, 0, K*P-1);
            $sformat(name, "%0s/start.hex", folder);
            $readmemh(name, start_file, 0, N-1);
            $sformat(name, "%0s/rtl_registers.txt", folder);
            registers = $fopen(name, "w");
            $sformat(name, "%0s/rtl_outputs.txt", folder);
            outputs = $fopen(name, "w");
            for (n = 0; n < N*P; n = n + 1) begin
                events[n] = 0;
                partial_events[n] = 0;
            end
            fold = 0;
            load_cycles = 0;
            multiply_cycles = 0;
            // Reset: no fold has loaded the rows that the ragged ones leave out.
            weights_in = 0;
            load = 1;
            for (t = 0; t < ROWS; t = t + 1) tick;
            load = 0;
            for (n0 = 0; n0 < N; n0 = n0 + COLUMNS) begin
                used_columns = N - n0 < COLUMNS ? N - n0 : COLUMNS;
                columns = full != 0 ? COLUMNS : used_columns;
                for (k0 = 0; k0 < K; k0 = k0 + ROWS) begin
                    used_rows = K - k0 < ROWS ? K - k0 : ROWS;
                    rows = full != 0 ? ROWS : used_rows;
                    run_fold;
                end
                // Read the accumulators of this channel tile.
                for (p = 0; p < P; p = p + 1) begin
                    for (j = 0; j < COLUMNS; j = j + 1) addresses[j*32 +: 32] = p;
                    #1;
                    for (j = 0; j < used_columns; j = j + 1) finished[(n0+j)*P+p] = words[j*ACC_BITS +: ACC_BITS];
                end
            end
            $fwrite(outputs, "%0d %0d 0\n", load_cycles, multiply_cycles);
            for (n = 0; n < N; n = n + 1)
                for (p = 0; p < P; p = p + 1)
                    $fwrite(
                        outputs, "%0d %0d %0d %0d %0d\n", n, p, finished[n*P+p], events[n*P+p], partial_events[n*P+p]
                    );
            $fclose(registers);
            $fclose(outputs);
        end
    endtask

    initial begin
        cases = $fopen("cases.txt", "r");
        found = $fscanf(
            cases, "%s %d %d %d %d %d %d %d %d %d", folder, N, K, P, weight_bits, weight_signed, activation_bits,
            activation_signed, start_bits, full
        );
        while (found == 10) begin
            run_case;
            found = $fscanf(
                cases, "%s %d %d %d %d %d %d %d %d %d", folder, N, K, P, weight_bits, weight_signed, activation_bits,
                activation_signed, start_bits, full
            );
        end
        $fclose(cases);
        $finish;
    end
endmodule
